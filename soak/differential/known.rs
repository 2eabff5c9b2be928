//! `docs/differences.md`: the list of what is known to differ, which is a document and a table in one.

use super::Verdict;

const LIST: &str = include_str!("../../docs/differences.md");

/// Who reads what the other does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    OnlyQemu,
    OnlyUs,
    /// Both read it, and differently.
    Both,
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) format: &'static str,
    pub(crate) who: Who,
    /// Part of what the one says that refuses, or of how they differ, or of what was changed. Several parts,
    /// all of them, with plus signs between.
    pub(crate) part: &'static str,
}

/// The classes, in the order of the list.
#[derive(Debug)]
pub(crate) struct Known(pub(crate) Vec<Class>);

impl Known {
    pub(crate) fn read() -> Self {
        let classes = LIST.lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[_, format, who, part, _, _] = &cells[..] else {
                return None;
            };
            let who = match who {
                "QEMU" => Who::OnlyQemu,
                "Longshore" => Who::OnlyUs,
                "both" => Who::Both,
                _ => return None,
            };
            let part = part.trim_matches('`');
            assert!(!part.is_empty(), "a class for everything: {line}");
            Some(Class { format, who, part })
        });
        Self(classes.collect())
    }

    pub(crate) fn find(&self, format: &str, who: Who, text: &str) -> Option<Verdict> {
        let fits = |class: &Class| {
            (class.format == format || class.format == "all")
                && class.who == who
                && class.part.split(" + ").all(|part| holds(part, text))
        };
        self.0.iter().position(fits).map(Verdict::Known)
    }
}

/// A part is there; or is not, if it begins with `!`. A line's end is written `\n`.
fn holds(part: &str, text: &str) -> bool {
    let part = part.replace("\\n", "\n");
    match part.strip_prefix('!') {
        Some(absent) => !text.contains(absent),
        None => text.contains(&part),
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, Who, holds};
    use crate::differential::Verdict;

    #[test]
    fn the_list_is_read_and_its_first_class_is_found() {
        let known = Known::read();
        assert!(known.0.len() > 10, "{}", known.0.len());
        let first = &known.0[0];
        let text = format!("it says {} of it", first.part.replace(" + ", " and "));
        let format = first.format;
        assert_eq!(
            known.find(format, first.who, &text),
            Some(Verdict::Known(0))
        );
        assert_eq!(known.find(format, Who::OnlyQemu, "nothing known"), None);
        assert!(holds("!a", "b") && !holds("!a", "a") && holds("a\\nb", "a\nb"));
    }
}
