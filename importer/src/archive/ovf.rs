//! The OVF descriptor, as far as disks go: files, disks, what refers to what.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{ArchiveError, Disk};

/// Most disks and files that a descriptor may list.
const MOST_ITEMS: usize = 10_000;
/// Elements are nested this deep at most.
const MOST_DEPTH: usize = 64;

/// A `File` of the references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct File {
    href: String,
    in_pieces: bool,
}

/// A `Disk` of the disk section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Described {
    id: String,
    file: Option<String>,
    capacity: Option<u64>,
    format: Option<String>,
    has_parent: bool,
}

/// What a descriptor says about disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    files: HashMap<String, File>,
    disks: Vec<Described>,
}

impl Envelope {
    /// Reads a descriptor. Names are taken without their namespaces: writers differ in prefixes, and no
    /// other vocabulary in use has these names in these places.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        let bad = |e: &dyn std::fmt::Display| {
            ArchiveError::malformed(format!(
                "its OVF descriptor is no XML that can be read: {e}"
            ))
        };
        let text = std::str::from_utf8(text).map_err(|e| bad(&e))?;
        let mut reader = Reader::from_str(text);
        let mut envelope = Self::default();
        let mut path: Vec<String> = Vec::new();
        loop {
            match reader.read_event().map_err(|e| bad(&e))? {
                Event::Start(element) => {
                    envelope.element(&path, &element)?;
                    path.push(local_name(&element));
                    if path.len() > MOST_DEPTH {
                        return Err(bad(&"elements are nested too deep"));
                    }
                }
                Event::Empty(element) => envelope.element(&path, &element)?,
                Event::End(_) => {
                    path.pop();
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if !path.is_empty() {
            return Err(bad(&"it ends in the middle"));
        }
        Ok(envelope)
    }

    fn element(&mut self, path: &[String], element: &BytesStart<'_>) -> Result<(), ArchiveError> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (path.as_slice(), local_name(element).as_str()) {
            (["Envelope", "References"], "File") => self.file(element)?,
            // OVF 0.9 called the section by its type: <Section xsi:type="ovf:DiskSection_Type">.
            (["Envelope", "DiskSection" | "Section"], "Disk") => self.disk(element)?,
            _ => {}
        }
        if self.files.len() > MOST_ITEMS || self.disks.len() > MOST_ITEMS {
            return Err(ArchiveError::malformed(format!(
                "its OVF descriptor lists more than {MOST_ITEMS} files or disks"
            )));
        }
        Ok(())
    }

    fn file(&mut self, element: &BytesStart<'_>) -> Result<(), ArchiveError> {
        let attributes = attributes(element)?;
        let get = |name: &str| attributes.get(name).cloned();
        let (Some(id), Some(href)) = (get("id"), get("href")) else {
            return Err(ArchiveError::malformed(
                "its OVF descriptor has a File without id or href",
            ));
        };
        let file = File {
            href: href.trim_start_matches("./").to_owned(),
            in_pieces: get("chunkSize").is_some(),
        };
        if self.files.insert(id.clone(), file).is_some() {
            return Err(ArchiveError::malformed(format!(
                "its OVF descriptor has two files with the id {id:?}"
            )));
        }
        Ok(())
    }

    fn disk(&mut self, element: &BytesStart<'_>) -> Result<(), ArchiveError> {
        let attributes = attributes(element)?;
        let get = |name: &str| attributes.get(name).cloned();
        let Some(id) = get("diskId") else {
            return Err(ArchiveError::malformed(
                "its OVF descriptor has a Disk without diskId",
            ));
        };
        if self.disks.iter().any(|disk| disk.id == id) {
            return Err(ArchiveError::malformed(format!(
                "its OVF descriptor has two disks with the id {id:?}"
            )));
        }
        let unit = get("capacityAllocationUnits");
        let capacity = get("capacity")
            .and_then(|text| text.trim().parse::<u64>().ok())
            .zip(units(unit.as_deref()))
            .and_then(|(count, unit)| count.checked_mul(unit));
        self.disks.push(Described {
            id,
            file: get("fileRef").filter(|file| !file.is_empty()),
            capacity,
            format: get("format"),
            has_parent: get("parentRef").is_some(),
        });
        Ok(())
    }

    /// The disks, given the files that are in the archive. `files` may be incomplete: then sizes are
    /// missing.
    pub(super) fn disks(&self, files: &[(String, u64)]) -> Vec<Disk> {
        self.disks
            .iter()
            .map(|disk| {
                let file = disk.file.as_ref().and_then(|id| self.files.get(id));
                let size = file
                    .and_then(|file| files.iter().find(|(name, _)| *name == file.href))
                    .map(|&(_, size)| size);
                let refused = match file {
                    _ if disk.has_parent => Some("it needs a parent disk"),
                    None if disk.file.is_some() => Some("its file is not among the references"),
                    None => Some("it starts empty: there is nothing to import"),
                    Some(file) if file.in_pieces => Some("its file is split into chunks"),
                    Some(file) if file.href.contains("://") => {
                        Some("its file is outside the archive")
                    }
                    Some(_) => None,
                };
                Disk {
                    id: disk.id.clone(),
                    file: file.map(|file| file.href.clone()),
                    file_size: size,
                    capacity: disk.capacity,
                    format: disk.format.clone(),
                    refused,
                }
            })
            .collect()
    }
}

fn local_name(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().to_owned()
}

fn attributes(element: &BytesStart<'_>) -> Result<HashMap<String, String>, ArchiveError> {
    let bad = |e: &dyn std::fmt::Display| {
        ArchiveError::malformed(format!("its OVF descriptor has a bad attribute: {e}"))
    };
    let mut found = HashMap::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|e| bad(&e))?;
        let name = attribute.key.local_name().as_ref().to_owned();
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|e| bad(&e))?;
        found.insert(name, value.into_owned());
    }
    Ok(found)
}

/// Bytes of a unit: none given, the old words, or `byte * 2^30` as DSP0004 programmes it.
fn units(text: Option<&str>) -> Option<u64> {
    let Some(text) = text else { return Some(1) };
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "byte" | "bytes" => return Some(1),
        "kilobytes" => return Some(1 << 10),
        "megabytes" => return Some(1 << 20),
        "gigabytes" => return Some(1 << 30),
        "terabytes" => return Some(1 << 40),
        _ => {}
    }
    let (unit, factor) = text.split_once('*')?;
    if unit.trim() != "byte" {
        return None;
    }
    match factor.split_once('^') {
        Some((base, exponent)) => base
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_pow(exponent.trim().parse().ok()?),
        None => factor.trim().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_specification_and_of_older_writers() {
        for (text, bytes) in [
            (None, Some(1)),
            (Some("byte"), Some(1)),
            (Some("byte * 2^30"), Some(1 << 30)),
            (Some("byte*10^3"), Some(1000)),
            (Some("byte * 512"), Some(512)),
            (Some("MegaBytes"), Some(1 << 20)),
            (Some("byte * 2^99"), None),
            (Some("parsec"), None),
        ] {
            assert_eq!(units(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn disks_come_with_their_files_whatever_the_prefixes() {
        let text = br#"<?xml version="1.0"?>
            <ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
            <References><File ovf:id="f1" ovf:href="a &amp; b.vmdk" ovf:size="7"/>
              <ovf:File ovf:id="f2" ovf:href="c.vmdk" ovf:chunkSize="100"></ovf:File></References>
            <ovf:DiskSection><Info>Disks</Info>
              <Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="2"
                    ovf:capacityAllocationUnits="byte * 2^30" ovf:format="http://x#streamOptimized"/>
              <Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="5"/>
              <Disk ovf:diskId="d3" ovf:capacity="5"/>
              <Disk ovf:diskId="d4" ovf:fileRef="f1" ovf:parentRef="d1"/>
              <Disk ovf:diskId="d5" ovf:fileRef="nowhere"/>
            </ovf:DiskSection></ovf:Envelope>"#;
        let disks = Envelope::parse(text)
            .unwrap()
            .disks(&[("a & b.vmdk".to_owned(), 7)]);
        assert_eq!(disks[0].file.as_deref(), Some("a & b.vmdk"));
        assert_eq!(
            (disks[0].file_size, disks[0].capacity),
            (Some(7), Some(2 << 30))
        );
        assert_eq!(disks[0].refused, None);
        let refused: Vec<bool> = disks.iter().map(|d| d.refused.is_some()).collect();
        assert_eq!(refused, [false, true, true, true, true]);
    }

    #[test]
    fn what_is_no_descriptor_is_refused_and_does_not_panic() {
        let deep = "<a>".repeat(MOST_DEPTH + 2);
        for text in [
            &b"<Envelope><References>"[..],
            b"<Envelope><References><File/></References></Envelope>",
            b"<Envelope><DiskSection><Disk/></DiskSection></Envelope>",
            b"<Envelope><DiskSection><Disk diskId='a'/><Disk diskId='a'/></DiskSection></Envelope>",
            b"<Envelope></Other>",
            b"\xff\xfe<",
            deep.as_bytes(),
        ] {
            assert!(Envelope::parse(text).is_err(), "{text:?}");
        }
    }
}
