//! Kubernetes quantities (`512Mi`, `1.5G`, `100m`, `12e6`), read exactly.
//!
//! A quantity is kept as a whole number of billionths in 128 bits, so `0.1` is one tenth and not
//! a float near it. As in Kubernetes, digits finer than a billionth round away from zero.
//! Unlike there, an amount of 2^63 and more is an error instead of being cut to 2^63-1.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Longest text taken for a quantity; the longest useful one has fewer than 40 characters.
const MAX_TEXT: usize = 128;
/// Powers of ten beyond this overflow any mantissa but zero, and below its negative vanish.
const MAX_EXPONENT: i32 = 400;

/// An amount, with the text it was written as.
///
/// Two quantities are equal when their amounts are, however they are spelled.
///
/// ```
/// use longshore_crds::Quantity;
/// let size: Quantity = "1.5Gi".parse()?;
/// assert_eq!(size.to_u64(), Some(1_610_612_736));
/// assert_eq!(size, "1536Mi".parse()?);
/// assert_eq!(size.to_string(), "1.5Gi");
/// # Ok::<(), longshore_crds::quantity::ParseQuantityError>(())
/// ```
#[derive(Clone)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// There is no digit where the number should be.
    #[error("\"{text}\" is not a quantity: a number such as 1.5 must come first")]
    NoNumber {
        /// The text refused.
        text: String,
    },
    /// What follows the number is no suffix of Kubernetes.
    #[error(
        "\"{text}\" is not a quantity: unknown suffix \"{suffix}\" \
         (one of Ki Mi Gi Ti Pi Ei, n u m k M G T P E, or an exponent such as e6)"
    )]
    UnknownSuffix {
        /// The text refused.
        text: String,
        /// The part after the number.
        suffix: String,
    },
    /// The amount is 2^63 or more.
    #[error("\"{text}\" is too large for a quantity (the limit is 2^63-1)")]
    TooLarge {
        /// The text refused.
        text: String,
    },
    /// The text is longer than any quantity.
    #[error("a text of {length} characters is too long for a quantity (the limit is {MAX_TEXT})")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

/// What a suffix multiplies by.
enum Scale {
    /// 2 to this power.
    Binary(u32),
    /// 10 to this power.
    Decimal(i32),
}

impl Quantity {
    /// The amount in billionths, exact.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The amount in whole units, rounded up; `None` when it is negative.
    pub fn to_u64(&self) -> Option<u64> {
        let whole = self.nanos.div_euclid(NANO);
        let rest = self.nanos.rem_euclid(NANO);
        u64::try_from(if rest == 0 { whole } else { whole + 1 }).ok()
    }

    /// A quantity of this many whole units, without a suffix.
    pub fn from_units(units: u32) -> Self {
        Self {
            text: units.to_string(),
            nanos: i128::from(units) * NANO,
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT {
            return Err(ParseQuantityError::TooLong { length: text.len() });
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError::NoNumber {
                text: text.to_owned(),
            });
        }
        let scale = parse_suffix(suffix).ok_or_else(|| ParseQuantityError::UnknownSuffix {
            text: text.to_owned(),
            suffix: suffix.to_owned(),
        })?;
        let magnitude = scaled_nanos(whole, fraction, &scale)
            .filter(|nanos| *nanos <= i128::from(i64::MAX) * NANO)
            .ok_or_else(|| ParseQuantityError::TooLarge {
                text: text.to_owned(),
            })?;
        let nanos = if negative { -magnitude } else { magnitude };
        Ok(Self {
            text: text.to_owned(),
            nanos,
        })
    }
}

fn parse_suffix(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "" => Scale::Decimal(0),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(10),
        "Mi" => Scale::Binary(20),
        "Gi" => Scale::Binary(30),
        "Ti" => Scale::Binary(40),
        "Pi" => Scale::Binary(50),
        "Ei" => Scale::Binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Whatever does not fit is as good as the bound: both overflow, or both vanish.
            let bound = if exponent.starts_with('-') {
                -MAX_EXPONENT
            } else {
                MAX_EXPONENT
            };
            let exponent = exponent.parse().unwrap_or(bound);
            Scale::Decimal(exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT))
        }
    })
}

/// `whole.fraction * scale` in billionths, rounded up; `None` when that overflows.
fn scaled_nanos(whole: &str, fraction: &str, scale: &Scale) -> Option<i128> {
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        mantissa = mantissa
            .checked_mul(10)?
            .checked_add(i128::from(digit - b'0'))?;
    }
    if mantissa == 0 {
        return Some(0);
    }
    let (multiplier, decimal) = match *scale {
        Scale::Binary(power) => (1_i128.checked_shl(power)?, 0),
        Scale::Decimal(power) => (1, power),
    };
    let mantissa = mantissa.checked_mul(multiplier)?;
    // The length is bounded by MAX_TEXT and the exponent by MAX_EXPONENT.
    let power = decimal + 9 - i32::try_from(fraction.len()).ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        mantissa.checked_mul(factor?)
    } else {
        // A divisor too large to write leaves less than a billionth, which rounds up to one.
        Some(factor.map_or(1, |divisor| {
            mantissa.div_euclid(divisor) + i128::from(mantissa % divisor != 0)
        }))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantity({})", self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 512Mi or 2")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                // The shortest decimal that reads back as this float is what was written.
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> i128 {
        text.parse::<Quantity>().unwrap().nanos()
    }

    #[test]
    fn amounts_follow_the_suffixes_of_kubernetes() {
        let cases: &[(&str, i128)] = &[
            ("0", 0),
            ("-0", 0),
            ("1", NANO),
            ("+1", NANO),
            ("-1", -NANO),
            ("1.", NANO),
            (".5", NANO / 2),
            ("0001", NANO),
            ("1.50", 3 * NANO / 2),
            ("1n", 1),
            ("1u", 1_000),
            ("100m", NANO / 10),
            ("1k", 1_000 * NANO),
            ("1M", 1_000_000 * NANO),
            ("1G", 1_000_000_000 * NANO),
            ("1T", 1_000_000_000_000 * NANO),
            ("1P", 1_000_000_000_000_000 * NANO),
            ("1E", 1_000_000_000_000_000_000 * NANO),
            ("1Ki", 1024 * NANO),
            ("1Mi", (1 << 20) * NANO),
            ("1Gi", (1 << 30) * NANO),
            ("1Ti", (1 << 40) * NANO),
            ("1Pi", (1 << 50) * NANO),
            ("1Ei", (1 << 60) * NANO),
            ("7.5Ei", (15 << 59) * NANO),
            ("0.1Ki", 102_400_000_000),
            ("12e6", 12_000_000 * NANO),
            ("12E6", 12_000_000 * NANO),
            ("12e+6", 12_000_000 * NANO),
            ("1.5e-3", 1_500_000),
            ("0e999999999999", 0),
            ("9223372036854775807", i128::from(i64::MAX) * NANO),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_billionth_rounds_away_from_zero() {
        assert_eq!(nanos("0.1n"), 1);
        assert_eq!(nanos("-0.1n"), -1);
        assert_eq!(nanos("1.0000000001"), NANO + 1);
        assert_eq!(nanos("1e-300"), 1);
        assert_eq!(nanos("1e-99999999999999"), 1);
        // Zeros at the end add no digits.
        assert_eq!(
            nanos("1.00000000000000000000000000000000000000000000000000"),
            NANO
        );
    }

    #[test]
    fn whole_units_round_up_and_refuse_negatives() {
        let units = |text: &str| text.parse::<Quantity>().unwrap().to_u64();
        assert_eq!(units("1.5"), Some(2));
        assert_eq!(units("100m"), Some(1));
        assert_eq!(units("0"), Some(0));
        assert_eq!(units("-0.5"), Some(0));
        assert_eq!(units("-1.5"), None);
        assert_eq!(units("9223372036854775807"), Some(i64::MAX as u64));
    }

    #[test]
    fn texts_that_are_no_quantities_are_refused_by_cause() {
        use ParseQuantityError as E;
        let error = |text: &str| text.parse::<Quantity>().unwrap_err();
        for text in ["", "+", "-", ".", "Gi", "1.2.3", "+-1", "é"] {
            assert!(
                matches!(error(text), E::NoNumber { .. }),
                "{text}: {:?}",
                error(text)
            );
        }
        for text in [
            "1KB", "1 Gi", "1gi", "1K", "1e", "1e+", "1e1.5", "1Gi ", "1µ", "0x10", "1_000",
        ] {
            assert!(
                matches!(error(text), E::UnknownSuffix { .. }),
                "{text}: {:?}",
                error(text)
            );
        }
        for text in [
            "9223372036854775808",
            "8Ei",
            "10E",
            "1e19",
            "1e400",
            "1e99999999999",
        ] {
            assert!(
                matches!(error(text), E::TooLarge { .. }),
                "{text}: {:?}",
                error(text)
            );
        }
        assert!(matches!(error(&"9".repeat(128)), E::TooLarge { .. }));
        assert!(matches!(
            error(&"0".repeat(129)),
            E::TooLong { length: 129 }
        ));
    }

    #[test]
    fn json_numbers_are_quantities_too() {
        let parse = |json: &str| serde_json::from_str::<Quantity>(json).unwrap().nanos();
        assert_eq!(parse("2"), 2 * NANO);
        assert_eq!(parse("-2"), -2 * NANO);
        assert_eq!(parse("0.1"), NANO / 10);
        assert_eq!(parse("1e3"), 1_000 * NANO);
        assert_eq!(parse("\"1Ki\""), 1024 * NANO);
        assert!(serde_json::from_str::<Quantity>("true").is_err());
        assert!(serde_json::from_str::<Quantity>("1e300").is_err());
    }

    proptest! {
        #[test]
        fn any_whole_number_with_a_binary_suffix_is_exact(n in 0_i64..(1 << 33), power in 0_usize..4) {
            let text = format!("{n}{}", ["", "Ki", "Mi", "Gi"][power]);
            let expected = i128::from(n) << (10 * power);
            match text.parse::<Quantity>() {
                Ok(quantity) => prop_assert_eq!(quantity.nanos(), expected * NANO),
                Err(_) => prop_assert!(expected > i128::from(i64::MAX)),
            }
        }

        #[test]
        fn moving_the_point_equals_changing_the_exponent(digits in 1_u64..1_000_000, places in 0_usize..6) {
            let text = format!("{digits:07}");
            let (whole, fraction) = text.split_at(7 - places);
            let pointed = format!("{whole}.{fraction}").parse::<Quantity>().unwrap();
            let scaled = format!("{digits}e-{places}").parse::<Quantity>().unwrap();
            prop_assert_eq!(pointed, scaled);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn text_survives_the_round_trip(text in "[+-]?[0-9]{1,9}(\\.[0-9]{0,9})?(|n|u|m|k|M|G|Ki|Mi|Gi|e3|E-2)") {
            let quantity: Quantity = text.parse().unwrap();
            prop_assert_eq!(quantity.to_string(), text.clone());
            let json = serde_json::to_string(&quantity).unwrap();
            prop_assert_eq!(serde_json::from_str::<Quantity>(&json).unwrap(), quantity);
        }
    }
}
