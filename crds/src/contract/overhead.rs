//! How much of a volume a filesystem takes for itself, and what is left for a disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Sizes of disks are whole multiples of this.
const ALIGN: u64 = 1 << 20;

/// A share in thousandths, as `Percent` of a `CDIConfig` writes it: `0`, `0.055`, `1`.
///
/// ```
/// use longshore_crds::contract::Overhead;
/// let overhead: Overhead = "0.06".parse()?;
/// assert_eq!(overhead.usable(10 << 30), 9660 << 20);
/// assert_eq!(overhead.required(9660 << 20), 10736998810);
/// # Ok::<(), longshore_crds::contract::ParseOverheadError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overhead {
    thousandths: u16,
}

/// A text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no share from 0 to 1 with at most three decimals, such as 0.055")]
pub struct ParseOverheadError {
    /// The text, cut.
    text: String,
}

impl Overhead {
    /// Upstream's, where no configuration says otherwise: 6 %.
    pub const USUAL: Self = Self { thousandths: 60 };

    /// Bytes that a disk may have on a volume of `available` bytes, in whole MiB.
    pub fn usable(self, available: u64) -> u64 {
        let without = (u128::from(available) * 1000).div_ceil(self.whole());
        let usable = u64::try_from(without).unwrap_or(available);
        usable / ALIGN * ALIGN
    }

    /// Bytes that a volume needs for a disk of `size` bytes. At most `u64::MAX`.
    pub fn required(self, size: u64) -> u64 {
        let aligned = u128::from(size).next_multiple_of(u128::from(ALIGN));
        let required = (aligned * self.whole()).div_ceil(1000);
        u64::try_from(required).unwrap_or(u64::MAX)
    }

    fn whole(self) -> u128 {
        1000 + u128::from(self.thousandths)
    }
}

impl FromStr for Overhead {
    type Err = ParseOverheadError;

    fn from_str(text: &str) -> Result<Self, ParseOverheadError> {
        let refused = || ParseOverheadError {
            text: text.chars().take(32).collect(),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = fraction.bytes().all(|b| b.is_ascii_digit());
        if !digits || fraction.is_empty() || fraction.len() > 3 {
            return Err(refused());
        }
        let fraction = format!("{fraction:0<3}").parse().map_err(|_| refused())?;
        match (whole, fraction) {
            ("0", thousandths) => Ok(Self { thousandths }),
            ("1", 0) => Ok(Self { thousandths: 1000 }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Overhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.thousandths {
            0 => f.write_str("0"),
            1000.. => f.write_str("1"),
            part => {
                let digits = format!("{part:03}");
                write!(f, "0.{}", digits.trim_end_matches('0'))
            }
        }
    }
}

impl Serialize for Overhead {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Overhead {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn shares_are_written_as_the_pattern_allows() {
        for (text, thousandths) in [
            ("0", 0),
            ("0.0", 0),
            ("0.06", 60),
            ("0.055", 55),
            ("0.999", 999),
            ("1", 1000),
        ] {
            let overhead: Overhead = text.parse().unwrap();
            assert_eq!(overhead.thousandths, thousandths, "{text}");
            assert_eq!(overhead.to_string().parse(), Ok(overhead));
        }
        for text in [
            "", ".1", "0.", "0.0001", "1.5", "2", "-0", "0.0x", "1e-2", " 0",
        ] {
            assert!(text.parse::<Overhead>().is_err(), "{text}");
        }
    }

    #[test]
    fn usable_space_is_what_upstream_computes() {
        let six: Overhead = "0.06".parse().unwrap();
        for (available, usable) in [
            (0, 0),
            (MIB, 0),
            (2 * MIB, MIB),
            (1024 * MIB, 966 * MIB),
            (106 * MIB, 100 * MIB),
        ] {
            assert_eq!(six.usable(available), usable, "{available}");
        }
        assert_eq!(Overhead::default().usable(MIB + 1), MIB);
        assert_eq!(six.required(100 * MIB), 106 * MIB);
        assert_eq!(six.required(1), 1_111_491);
    }

    proptest! {
        #[test]
        fn a_volume_of_the_required_size_has_room(size in 1u64..1 << 60, thousandths in 0u16..=1000) {
            let overhead = Overhead { thousandths };
            prop_assert!(overhead.usable(overhead.required(size)) >= size);
            prop_assert!(overhead.usable(size) <= size);
        }
    }
}
