//! Feature bits: what must be known, and what to call it.

use super::area::Area;
use crate::qcow2::layout::{RawHeaderV3, autoclear, compatible, incompatible};
use crate::{Error, Result};

/// Feature bits; none before version 3.
#[derive(Debug)]
pub(super) struct Features {
    incompatible: u64,
    compatible: u64,
    autoclear: u64,
}

impl Features {
    pub(super) fn of(v3: Option<&RawHeaderV3>) -> Self {
        Self {
            incompatible: v3.map_or(0, |v3| v3.incompatible_features.get()),
            compatible: v3.map_or(0, |v3| v3.compatible_features.get()),
            autoclear: v3.map_or(0, |v3| v3.autoclear_features.get()),
        }
    }

    pub(super) fn has(&self, bit: u64) -> bool {
        self.incompatible & bit != 0
    }

    /// Refuses what would be read wrongly, by name.
    pub(super) fn check_known(&self, area: &Area<'_>) -> Result<()> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            let names: Vec<String> = (0..64_u8)
                .filter(|&bit| unknown.checked_shr(u32::from(bit)).unwrap_or(0) & 1 != 0)
                .map(|bit| match area.feature_name(bit) {
                    Some(name) => format!("bit {bit} {name:?}"),
                    None => format!("bit {bit}"),
                })
                .collect();
            return Err(Error::unsupported(format!(
                "the image needs features that are unknown here: {}",
                names.join(", ")
            ))
            .at(72));
        }
        if self.has(incompatible::CORRUPT) {
            return Err(Error::unsupported(
                "the image is marked as corrupt: repair it with `qemu-img check -r all`",
            )
            .at(72));
        }
        Ok(())
    }

    pub(super) fn words(&self, snapshots: bool) -> Vec<String> {
        [
            (self.has(incompatible::DIRTY), "dirty"),
            (self.has(incompatible::EXTERNAL_DATA), "external data file"),
            (self.has(incompatible::EXTENDED_L2), "extended l2"),
            (
                self.compatible & compatible::LAZY_REFCOUNTS != 0,
                "lazy refcounts",
            ),
            (self.autoclear & autoclear::BITMAPS != 0, "bitmaps"),
            (
                self.autoclear & autoclear::RAW_EXTERNAL_DATA != 0,
                "raw external data",
            ),
            (snapshots, "internal snapshots"),
        ]
        .into_iter()
        .filter(|(there, _)| *there)
        .map(|(_, word)| word.to_owned())
        .collect()
    }
}
