//! What a worker says when it ends: a JSON object in the container's termination message.
//!
//! The kubelet keeps 4096 bytes of it and cuts the rest, after which it is no JSON. So this is always
//! shorter, whatever labels an image carries and however long the story of a failure is. What has to give
//! way, in this order: the message beyond its first KiB, labels (those that KubeVirt acts upon stay
//! longest), the ends of long names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::label;

/// A message has fewer bytes than this.
pub const MOST_BYTES: usize = 4096;
/// What of the text stays, whatever else there is.
const TEXT: usize = 1024;
/// Longest name of a source.
const NAME: usize = 768;
/// Longest of the other texts.
const WORD: usize = 160;
/// What shows that something was cut.
const CUT: &str = "...";

/// How a worker ended. The first group of fields is upstream's, spelled its way; the second is ours.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Termination {
    /// Never true: nothing of ours needs scratch space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch_space_required: Option<bool>,
    /// Blocks were set aside for the whole disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preallocation_applied: Option<bool>,
    /// An upload server's time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_passed: Option<bool>,
    /// The other side of a VDDK import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vddk_info: Option<VddkInfo>,
    /// Labels for the claim, out of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What happened, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What happened, in one word; `Complete` when all went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Format of the image, with its wrappers: `qcow2 in gz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Size of the image's disk in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    /// Size of what was made in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<u64>,
    /// What was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceIdentity>,
    /// Digest of the source that was demanded and found, `ALGO:HEX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Bytes read from the source, repeated ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// Bytes written to the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<u64>,
    /// Bytes that waited in a file for their tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_spilled: Option<u64>,
    /// Bytes of the disk that an earlier worker, which did not come to its end, had done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_resumed: Option<u64>,
    /// From start to durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many labels there was no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub labels_dropped: usize,
}

/// The other side of a VDDK import; capitals as upstream writes them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VddkInfo {
    /// The library's version.
    pub version: String,
    /// The host that served the disk.
    pub host: String,
}

/// Which state of what source was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceIdentity {
    /// Its address, without secrets.
    pub name: String,
    /// Its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// What tells this state of it from others: an entity tag, a date, a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Termination {
    /// Reads what a worker left. What other versions say beyond this is passed over.
    pub fn parse(message: &str) -> serde_json::Result<Self> {
        serde_json::from_str(message)
    }

    /// The message: JSON of less than [`MOST_BYTES`].
    pub fn to_message(&self) -> String {
        let mut kept = self.clipped();
        let labels = std::mem::take(&mut kept.labels);
        let text = kept.message.take();
        // What counts labels that were dropped has room set aside for it.
        kept.labels_dropped = labels.len().max(1);
        let mut room = MOST_BYTES - 1 - json(&kept).len().min(MOST_BYTES - 1);
        let text_field = |text: &str| r#","message":"#.len() + json(&text).len();
        let short = text.as_deref().map(|text| clip(text, TEXT));
        room = room.saturating_sub(short.as_deref().map_or(0, text_field));
        room = room.saturating_sub(r#","labels":{}"#.len());
        let all = labels.len();
        let mut ordered: Vec<_> = labels.into_iter().collect();
        ordered.sort_by_key(|(name, _)| !acted_upon(name));
        for (name, value) in ordered {
            let bytes = json(&name).len() + json(&value).len() + 2;
            if bytes <= room {
                room -= bytes;
                kept.labels.insert(name, value);
            }
        }
        kept.labels_dropped = all - kept.labels.len();
        // The text may have what is left.
        let longer = short.as_deref().map_or(0, |short| json(&short).len()) + room;
        kept.message = text.map(|text| clip(&text, longer.saturating_sub(2).max(TEXT)));
        json(&kept)
    }

    /// With texts of bounded length.
    fn clipped(&self) -> Self {
        let word = |text: &String| clip(text, WORD);
        let mut kept = self.clone();
        kept.vddk_info = self.vddk_info.as_ref().map(|info| VddkInfo {
            version: word(&info.version),
            host: word(&info.host),
        });
        kept.reason = self.reason.as_ref().map(word);
        kept.format = self.format.as_ref().map(word);
        kept.checksum = self.checksum.as_ref().map(word);
        kept.source = self.source.as_ref().map(|source| SourceIdentity {
            name: clip(&source.name, NAME),
            length: source.length,
            state: source.state.as_ref().map(word),
        });
        // JSON has no number for it.
        kept.seconds = self.seconds.filter(|seconds| seconds.is_finite());
        kept
    }
}

/// Labels that change how KubeVirt makes a machine of the disk.
fn acted_upon(label: &str) -> bool {
    label.starts_with(label::OF_INSTANCETYPE) || label == "kubevirt.io/dynamic-credentials-support"
}

/// JSON of what always has one: structs of texts and numbers.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// As much of `text` as has no more than `most` bytes in JSON, between its quotes.
fn clip(text: &str, most: usize) -> String {
    let mut bytes = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        bytes += bytes_in_json(c);
        if bytes > most {
            return format!("{}{CUT}", &text[..end]);
        }
        if bytes + CUT.len() <= most {
            end = at + c.len_utf8();
        }
    }
    text.to_owned()
}

fn bytes_in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    #[test]
    fn fields_are_spelled_as_upstream_spells_them() {
        let all = Termination {
            scratch_space_required: Some(false),
            preallocation_applied: Some(true),
            deadline_passed: Some(false),
            vddk_info: Some(VddkInfo {
                version: "8.0.2".into(),
                host: "esx1".into(),
            }),
            labels: [("a.kubevirt.io/b".to_owned(), "c".to_owned())].into(),
            message: Some("Import Complete".into()),
            ..Termination::default()
        };
        assert_eq!(
            all.to_message(),
            r#"{"scratchSpaceRequired":false,"preallocationApplied":true,"deadlinePassed":false,"vddkInfo":{"Version":"8.0.2","Host":"esx1"},"labels":{"a.kubevirt.io/b":"c"},"message":"Import Complete"}"#
        );
        assert_eq!(Termination::parse(&all.to_message()).unwrap(), all);
        let upstream = r#"{"scratchSpaceRequired":true,"somethingNew":[1]}"#;
        let read = Termination::parse(upstream).unwrap();
        assert_eq!(read.scratch_space_required, Some(true));
    }

    #[test]
    fn labels_that_are_acted_upon_stay_longest_and_the_text_keeps_its_beginning() {
        let labels = (0..500).map(|n| (format!("a.kubevirt.io/{n:03}"), "x".repeat(40)));
        let mut labels: BTreeMap<_, _> = labels.collect();
        let wanted = "instancetype.kubevirt.io/default-instancetype";
        labels.insert(wanted.into(), "u1.small".into());
        let end = Termination {
            labels,
            message: Some("long ".repeat(2000)),
            ..Termination::default()
        };
        let message = end.to_message();
        assert!(
            (3900..MOST_BYTES).contains(&message.len()),
            "{}",
            message.len()
        );
        let read = Termination::parse(&message).unwrap();
        assert!(read.labels.contains_key(wanted));
        assert_eq!(read.labels.len() + read.labels_dropped, 501);
        let text = read.message.unwrap();
        assert!(text.len() >= TEXT - 8 && text.ends_with("..."), "{text}");
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,30}",
            // Repeated, so that long texts cost no time to make.
            ("[\\x00-\\x1f\"\\\\a-zé世𝄞]{1,12}", 0usize..400).prop_map(|(text, n)| text.repeat(n)),
        ]
    }

    prop_compose! {
        fn ends()(
            labels in btree_map(text(), text(), 0..20),
            texts in proptest::collection::vec(proptest::option::of(text()), 6),
            numbers in proptest::option::of(any::<u64>()),
            seconds in proptest::option::of(any::<f64>()),
            flag in proptest::option::of(any::<bool>()),
        ) -> Termination {
            let text = |n: usize| texts.get(n).cloned().flatten();
            Termination {
                scratch_space_required: flag,
                preallocation_applied: flag,
                deadline_passed: flag,
                vddk_info: text(0).map(|version| VddkInfo { host: version.clone(), version }),
                labels,
                message: text(1),
                reason: text(2),
                format: text(3),
                virtual_size: numbers,
                disk_size: numbers,
                source: text(4).map(|name| SourceIdentity {
                    state: Some(name.clone()),
                    name,
                    length: numbers,
                }),
                checksum: text(5),
                bytes_read: numbers,
                bytes_written: numbers,
                bytes_spilled: numbers,
                bytes_resumed: numbers,
                seconds,
                labels_dropped: 0,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn a_message_is_always_whole_and_short_enough(end in ends()) {
            let message = end.to_message();
            prop_assert!(message.len() < MOST_BYTES, "{}", message.len());
            let read = Termination::parse(&message).unwrap();
            prop_assert_eq!(read.bytes_read, end.bytes_read);
            prop_assert_eq!(read.scratch_space_required, end.scratch_space_required);
            prop_assert_eq!(read.labels.len() + read.labels_dropped, end.labels.len());
            for (name, value) in &read.labels {
                prop_assert_eq!(end.labels.get(name), Some(value));
            }
            if let (Some(text), Some(read)) = (&end.message, &read.message) {
                let kept = read.strip_suffix(CUT).unwrap_or(read);
                prop_assert!(text.starts_with(kept) && (text == read || kept.len() > 160));
            }
        }
    }
}
