//! Names that all three trees can carry.

use std::collections::BTreeSet;

use super::{File, IsoError};

/// What Joliet takes.
const MAX_NAME: usize = 64;
/// Joliet's share of the label's field; the primary tree has twice that.
const MAX_LABEL: usize = 16;
/// Not allowed by Joliet, and a path separator with everybody.
const RESERVED: &[char] = &['*', '/', ':', ';', '?', '\\'];

pub(super) fn check_label(label: &str) -> Result<(), IsoError> {
    let printable = label.bytes().all(|b| b.is_ascii_graphic());
    if label.is_empty() || label.len() > MAX_LABEL || !printable {
        return Err(IsoError::Label {
            label: label.to_owned(),
        });
    }
    Ok(())
}

/// An 8.3 name with version for each file, all different.
pub(super) fn short_names(files: &[File<'_>]) -> Result<Vec<String>, IsoError> {
    let mut seen = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(files.len());
    for file in files {
        check_name(file.name)?;
        if !seen.insert(file.name) {
            return Err(IsoError::Duplicate {
                name: file.name.to_owned(),
            });
        }
        let (stem, extension) = short_name(file.name);
        // There are fewer files than numbers, so one is free.
        let free = (0..=files.len())
            .map(|number| numbered(&stem, &extension, number))
            .find(|name| !taken.contains(name))
            .ok_or_else(|| IsoError::Name {
                name: file.name.to_owned(),
            })?;
        taken.insert(free.clone());
        names.push(free);
    }
    Ok(names)
}

fn check_name(name: &str) -> Result<(), IsoError> {
    let bad = |c: char| c.is_control() || u32::from(c) > 0xffff || RESERVED.contains(&c);
    if ["", ".", ".."].contains(&name) || name.chars().count() > MAX_NAME || name.contains(bad) {
        return Err(IsoError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Up to 8 characters before the dot and up to 3 after it.
fn short_name(name: &str) -> (String, String) {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let convert = |text: &str, length| {
        let valid = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        text.chars().map(valid).take(length).collect::<String>()
    };
    (convert(stem, 8), convert(extension, 3))
}

/// The name itself for 0; otherwise the number takes the place of the stem's end.
fn numbered(stem: &str, extension: &str, number: usize) -> String {
    if number == 0 {
        return format!("{stem}.{extension};1");
    }
    let number = number.to_string();
    let kept: String = stem
        .chars()
        .take(8_usize.saturating_sub(number.len()))
        .collect();
    format!("{kept}{number}.{extension};1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(names: &[&str]) -> Result<Vec<String>, IsoError> {
        let files: Vec<_> = names.iter().map(|name| File { name, bytes: b"" }).collect();
        short_names(&files)
    }

    #[test]
    fn names_are_shortened_and_stay_apart() {
        assert_eq!(
            short(&[
                "user-data",
                "user-database",
                "meta-data",
                "a.tar.gz",
                ".x",
                "user-dat1"
            ])
            .unwrap(),
            [
                "USER_DAT.;1",
                "USER_DA1.;1",
                "META_DAT.;1",
                "A_TAR.GZ;1",
                ".X;1",
                "USER_DA2.;1"
            ]
        );
    }

    #[test]
    fn names_that_a_tree_cannot_carry_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a;1",
            "a\0",
            "a\n",
            "😀",
            &"x".repeat(65),
        ] {
            assert!(
                matches!(short(&[name]), Err(IsoError::Name { .. })),
                "{name}"
            );
        }
        assert!(short(&[&"é".repeat(64)]).is_ok());
        assert!(matches!(
            short(&["a", "a"]),
            Err(IsoError::Duplicate { .. })
        ));
        assert!(check_label("cidata").is_ok());
        for label in ["", "a b", "é", &"x".repeat(17)] {
            assert!(
                matches!(check_label(label), Err(IsoError::Label { .. })),
                "{label}"
            );
        }
    }
}
