//! Which parts of a disk are data, zeros, or as they were: what ovirt-imageio's extents say, kept small.
//!
//! The list comes as one JSON array, however long: it is read as it comes. Where it has too many entries
//! to be kept, gaps between data are taken for data, the smallest first: that reads more than needed, and
//! is as right as before.

use std::fmt;
use std::io::Read;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer as _, SeqAccess, Visitor};

/// Most parts that are kept: 1 MiB.
const MOST: usize = 64 << 10;

/// What a part of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Zeros,
    /// As in the target: nothing is to be done.
    Same,
}

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// The whole disk.
    Zero,
    /// One layer of it: what is a hole is below.
    Layer,
    /// An incremental backup.
    Dirty,
}

/// An entry of the array, in any context.
#[derive(Debug, Deserialize)]
struct Entry {
    start: u64,
    length: u64,
    #[serde(default)]
    zero: bool,
    #[serde(default)]
    hole: bool,
    dirty: Option<bool>,
}

impl Entry {
    fn kind(&self, context: Context) -> Result<Kind, &'static str> {
        let same = match (context, self.dirty) {
            (Context::Zero, _) => false,
            (Context::Layer, _) => self.hole,
            (Context::Dirty, Some(dirty)) => !dirty,
            (Context::Dirty, None) => return Err("an extent does not say whether it changed"),
        };
        Ok(match (same, self.zero) {
            (true, _) => Kind::Same,
            (false, true) => Kind::Zeros,
            (false, false) => Kind::Data,
        })
    }
}

/// The parts of a disk, in order and without gaps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extents {
    /// Where each part ends.
    parts: Vec<(u64, Kind)>,
    /// Shorter parts than this are not kept apart from data.
    least: u64,
}

impl Extents {
    /// Reads the server's array.
    pub(super) fn read(from: impl Read, context: Context) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_reader(from);
        let extents = json.deserialize_seq(Entries(context))?;
        json.end()?;
        Ok(extents)
    }

    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.parts.last().map_or(0, |(end, _)| *end)
    }

    /// All parts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<u64>, Kind)> + '_ {
        let mut at = 0;
        self.parts.iter().map(move |&(end, kind)| {
            let start = std::mem::replace(&mut at, end);
            (start..end, kind)
        })
    }

    fn push(&mut self, len: u64, kind: Kind) -> Result<(), &'static str> {
        let start = self.size();
        let end = start.checked_add(len).ok_or("an extent has no end")?;
        match self.parts.last_mut() {
            Some((last, of)) if *of == kind => *last = end,
            _ if len > 0 => self.parts.push((end, kind)),
            _ => {}
        }
        if self.parts.len() > MOST {
            self.coarsen();
        }
        Ok(())
    }

    fn coarsen(&mut self) {
        while self.parts.len() > MOST / 2 {
            self.least = (self.least * 2).max(64 << 10);
            let old = std::mem::take(&mut self.parts);
            let mut at = 0;
            for (end, kind) in old {
                let kind = if end - at < self.least {
                    Kind::Data
                } else {
                    kind
                };
                match self.parts.last_mut() {
                    Some((last, of)) if *of == kind => *last = end,
                    _ => self.parts.push((end, kind)),
                }
                at = end;
            }
        }
        tracing::info!(
            least = self.least,
            "the server tells more extents than are kept: short ones are read"
        );
    }
}

struct Entries(Context);

impl<'de> Visitor<'de> for Entries {
    type Value = Extents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of extents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Extents, A::Error> {
        let mut extents = Extents::default();
        while let Some(entry) = entries.next_element::<Entry>()? {
            if entry.start != extents.size() {
                return Err(de::Error::custom("the extents have gaps, or overlap"));
            }
            if entry.length == 0 {
                return Err(de::Error::custom("an extent is empty"));
            }
            let kind = entry.kind(self.0).map_err(de::Error::custom)?;
            extents
                .push(entry.length, kind)
                .map_err(de::Error::custom)?;
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, context: Context) -> Vec<(Range<u64>, Kind)> {
        Extents::read(json.as_bytes(), context)
            .unwrap()
            .iter()
            .collect()
    }

    const ALL: &str = r#"[
        {"start": 0, "length": 10, "zero": false, "hole": false, "dirty": true},
        {"start": 10, "length": 5, "zero": true, "hole": false, "dirty": true},
        {"start": 15, "length": 5, "zero": true, "hole": true, "dirty": false},
        {"start": 20, "length": 1, "zero": false, "hole": false, "dirty": false, "new": []}]"#;

    #[test]
    fn extents_mean_what_was_asked_for() {
        let whole = [
            (0..10, Kind::Data),
            (10..20, Kind::Zeros),
            (20..21, Kind::Data),
        ];
        assert_eq!(read(ALL, Context::Zero), whole);
        let layer = [
            (0..10, Kind::Data),
            (10..15, Kind::Zeros),
            (15..20, Kind::Same),
            (20..21, Kind::Data),
        ];
        assert_eq!(read(ALL, Context::Layer), layer);
        let dirty = [
            (0..10, Kind::Data),
            (10..15, Kind::Zeros),
            (15..21, Kind::Same),
        ];
        assert_eq!(read(ALL, Context::Dirty), dirty);
        assert_eq!(read("[]", Context::Zero), []);
    }

    #[test]
    fn what_is_no_list_of_extents_is_refused() {
        for json in [
            "",
            "{}",
            "[1]",
            r#"[{"start": 1, "length": 1}]"#,
            r#"[{"start": 0, "length": 0}]"#,
            r#"[{"start": 0, "length": -1}]"#,
            r#"[{"start": 0, "length": 5}, {"start": 4, "length": 5}]"#,
            r#"[{"start": 0, "length": 18446744073709551615}, {"start": 18446744073709551615, "length": 1}]"#,
            r#"[{"start": 0, "length": 5}"#,
            r#"[{"start": 0, "length": 5}] more"#,
        ] {
            let refused = Extents::read(json.as_bytes(), Context::Zero);
            assert!(refused.is_err(), "{json}");
        }
        let unsaid = Extents::read(r#"[{"start": 0, "length": 5}]"#.as_bytes(), Context::Dirty);
        assert!(unsaid.is_err());
    }

    #[test]
    fn too_many_extents_become_fewer_and_none_of_their_data_is_lost() {
        let mut all = Extents::default();
        let mut data = 0;
        for n in 0..400_000u64 {
            let (len, kind) = if n % 2 == 0 {
                data += 4096;
                (4096, Kind::Data)
            } else {
                (4096 << (n % 13), Kind::Zeros)
            };
            all.push(len, kind).unwrap();
        }
        assert!(all.parts.len() <= MOST, "{}", all.parts.len());
        let covered: u64 = all
            .iter()
            .filter(|(_, kind)| *kind == Kind::Data)
            .map(|(range, _)| range.end - range.start)
            .sum();
        assert!(covered >= data && covered < all.size());
    }
}
