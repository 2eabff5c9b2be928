//! Amounts of bytes, for people. What is shown is rounded, so floats do.

/// `1.2 GiB`.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if amount < 1024 {
        return format!("{amount} B");
    }
    let mut scaled = float(amount) / 1024.0;
    let mut unit = 0;
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let unit = UNITS[unit];
    if (scaled - scaled.round()).abs() < 0.05 {
        format!("{scaled:.0} {unit}")
    } else {
        format!("{scaled:.1} {unit}")
    }
}

/// `1.2 GiB (1288490189 bytes)`.
pub(crate) fn exact(amount: u64) -> String {
    if amount < 1024 {
        format!("{amount} bytes")
    } else {
        format!("{} ({amount} bytes)", bytes(amount))
    }
}

/// The whole part; what is negative or no number is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts from floats saturate, which is what a display wants"
)]
pub(crate) fn whole(amount: f64) -> u64 {
    amount as u64
}

/// Near enough to be shown.
#[expect(
    clippy::cast_precision_loss,
    reason = "nobody sees the seventeenth digit"
)]
pub(crate) fn float(amount: u64) -> f64 {
    amount as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_never_lie_about_the_unit() {
        for (amount, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(amount), text, "{amount}");
        }
        assert_eq!(exact(512), "512 bytes");
        assert_eq!(exact(2048), "2 KiB (2048 bytes)");
    }
}
