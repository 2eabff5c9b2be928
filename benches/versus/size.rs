//! Sizes as people type them.

/// `512M`, `6G`, `4096`: with K, M, G or T of 1024, and at least 64 MiB: less is no disk.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.chars().last() {
        Some('K' | 'k') => (&text[..text.len() - 1], 10),
        Some('M' | 'm') => (&text[..text.len() - 1], 20),
        Some('G' | 'g') => (&text[..text.len() - 1], 30),
        Some('T' | 't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let size: Option<u64> = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift));
    match size {
        Some(size) if size >= 64 << 20 && size % (1 << 20) == 0 => Ok(size),
        Some(_) => Err("a disk is 64M at least, and whole MiB".to_owned()),
        None => Err("not a size such as 512M or 6G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_with_their_units_and_nonsense_is_refused() {
        assert_eq!(parse("6G"), Ok(6 << 30));
        assert_eq!(parse("512m"), Ok(512 << 20));
        assert_eq!(parse("1073741824"), Ok(1 << 30));
        for bad in ["", "G", "-1G", "1.5G", "1K", "99999999999T", "100000001"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
