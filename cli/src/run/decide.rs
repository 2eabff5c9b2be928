//! What becomes of a disk: made, kept, or left alone with a message. Pure.

use super::record::{Origin, Record, Stage};

/// What is to be done about one data volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Import it, in place of whatever is there.
    Import,
    /// Use what is there. `grow` is the size it gets first.
    Keep {
        grow: Option<u64>,
        /// Something that a person may not expect.
        remark: Option<String>,
    },
    /// Neither is right without being told so.
    Refuse { why: String },
}

/// Decides. `disk` is the length of the file that is there. No network is asked: a disk is imported
/// once, as a cluster does it, and a machine whose disks are there starts without one.
pub(super) fn decide(
    wanted: &Origin,
    size: u64,
    record: Option<&Record>,
    disk: Option<u64>,
    reimport: bool,
) -> Decision {
    let Some(disk) = disk else {
        return Decision::Import;
    };
    if reimport {
        return Decision::Import;
    }
    let Some(record) = record else {
        return Decision::Refuse {
            why: "longshore has no record of having made it".to_owned(),
        };
    };
    match record.stage {
        // Nothing was ever started on it.
        Stage::Importing => return Decision::Import,
        Stage::Imported if record.origin != *wanted => return Decision::Import,
        Stage::Used if record.origin != *wanted => {
            return Decision::Refuse {
                why: format!(
                    "a machine has used it, and it was made from {} while the manifest now says {}",
                    named(&record.origin),
                    named(wanted)
                ),
            };
        }
        Stage::Imported | Stage::Used => {}
    }
    if disk < record.size {
        return Decision::Refuse {
            why: format!(
                "it has {disk} bytes and was made with {}: something has cut it",
                record.size
            ),
        };
    }
    Decision::Keep {
        grow: (disk < size).then_some(size),
        remark: (disk > size).then(|| {
            format!("it has {disk} bytes, the manifest asks for {size}: disks never shrink")
        }),
    }
}

fn named(origin: &Origin) -> String {
    match origin {
        Origin::Blank => "nothing (blank)".to_owned(),
        // A query may be a signature.
        Origin::Http { url, checksum } => {
            let url = url.split(['?', '#']).next().unwrap_or_default();
            match checksum {
                Some(checksum) => format!("{url} ({checksum})"),
                None => url.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn http(url: &str) -> Origin {
        Origin::Http {
            url: url.to_owned(),
            checksum: None,
        }
    }

    fn keep(grow: Option<u64>) -> Decision {
        Decision::Keep { grow, remark: None }
    }

    #[test]
    fn what_is_complete_and_as_asked_is_kept() {
        let origin = http("http://h/a");
        for stage in [Stage::Imported, Stage::Used] {
            let record = Record::new(stage, origin.clone(), GIB);
            let decided = |size, disk| decide(&origin, size, Some(&record), disk, false);
            assert_eq!(decided(GIB, Some(GIB)), keep(None));
            assert_eq!(decided(2 * GIB, Some(GIB)), keep(Some(2 * GIB)));
            assert!(matches!(
                decided(GIB / 2, Some(GIB)),
                Decision::Keep {
                    grow: None,
                    remark: Some(_)
                }
            ));
            assert_eq!(decided(GIB, None), Decision::Import, "the disk is gone");
        }
    }

    #[test]
    fn an_import_that_was_cut_short_is_done_again() {
        let origin = http("http://h/a");
        let record = Record::new(Stage::Importing, origin.clone(), GIB);
        for disk in [None, Some(0), Some(GIB)] {
            let decision = decide(&origin, GIB, Some(&record), disk, false);
            assert_eq!(decision, Decision::Import);
        }
    }

    #[test]
    fn a_new_source_replaces_only_what_no_machine_has_used() {
        let (old, new) = (http("http://h/a"), http("http://h/b"));
        let imported = Record::new(Stage::Imported, old.clone(), GIB);
        assert_eq!(
            decide(&new, GIB, Some(&imported), Some(GIB), false),
            Decision::Import
        );
        let used = Record::new(Stage::Used, old, GIB);
        let decision = decide(&new, GIB, Some(&used), Some(GIB), false);
        assert!(matches!(decision, Decision::Refuse { .. }), "{decision:?}");
        assert_eq!(
            decide(&new, GIB, Some(&used), Some(GIB), true),
            Decision::Import
        );
    }

    #[test]
    fn strange_disks_are_left_alone() {
        let origin = http("http://h/a");
        let decision = decide(&origin, GIB, None, Some(GIB), false);
        assert!(matches!(decision, Decision::Refuse { .. }), "no record");
        let used = Record::new(Stage::Used, origin.clone(), GIB);
        let decision = decide(&origin, GIB, Some(&used), Some(GIB - 512), false);
        assert!(matches!(decision, Decision::Refuse { .. }), "cut");
        assert_eq!(
            decide(&origin, GIB, None, Some(GIB), true),
            Decision::Import
        );
    }

    #[test]
    fn a_refusal_names_both_sources_without_their_queries() {
        let used = Record::new(Stage::Used, http("http://h/a?sig=hush"), GIB);
        let decision = decide(&Origin::Blank, GIB, Some(&used), Some(GIB), false);
        let Decision::Refuse { why } = decision else {
            panic!("{decision:?}")
        };
        assert!(
            why.contains("http://h/a ") && why.contains("blank"),
            "{why}"
        );
        assert!(!why.contains("hush"), "{why}");
    }
}
