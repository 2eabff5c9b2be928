//! `info` of an archive: the disks in it.

use longshore_importer::{Contents, Disk};
use serde::Serialize;

use super::printable;
use crate::bytes::exact;
use crate::failure::Failure;
use crate::look::Look;
use crate::output::Data;

/// What `--json` prints. Fields are added, never renamed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    source: &'a str,
    format: &'static str,
    /// `null`: not looked at, because the archive comes as a stream.
    manifest: Option<bool>,
    disks: Vec<ShownDisk<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownDisk<'a> {
    id: &'a str,
    file: Option<&'a str>,
    file_size: Option<u64>,
    virtual_size: Option<u64>,
    format: Option<&'a str>,
    refused: Option<&'static str>,
}

/// Prints them.
pub(super) fn print(look: &Look, contents: &Contents) -> Result<(), Failure> {
    let source = look.place.name();
    let mut data = Data::open();
    if look.json {
        data.json_document(&Shown {
            source: &source,
            format: format(contents),
            manifest: contents.has_manifest,
            disks: contents.disks.iter().map(shown).collect(),
        })?;
    } else {
        data.write(&text(&source, contents))?;
    }
    data.finish()
}

fn format(contents: &Contents) -> &'static str {
    if contents.is_ova { "ova" } else { "tar" }
}

fn shown(disk: &Disk) -> ShownDisk<'_> {
    ShownDisk {
        id: &disk.id,
        file: disk.file.as_deref(),
        file_size: disk.file_size,
        virtual_size: disk.capacity,
        format: disk.format.as_deref(),
        refused: disk.refused,
    }
}

fn text(source: &str, contents: &Contents) -> String {
    let manifest = match contents.has_manifest {
        Some(true) => "yes: digests are checked on import",
        Some(false) => "no: the disks can't be checked",
        None => "not looked at: the archive comes as a stream",
    };
    let mut text = format!(
        "archive:       {}\nformat:        {}\nmanifest:      {manifest}\ndisks:         {}\n",
        printable(source),
        format(contents),
        contents.disks.len(),
    );
    for disk in &contents.disks {
        let mut facts = Vec::new();
        facts.extend(disk.file.as_deref().map(printable));
        facts.extend(
            disk.capacity
                .map(|size| [&exact(size), " virtual"].concat()),
        );
        facts.extend(
            disk.file_size
                .map(|size| [&exact(size), " in the archive"].concat()),
        );
        facts.extend(
            disk.refused
                .map(|why| ["can't be imported: ", why].concat()),
        );
        text += &["  #", &printable(&disk.id), ": ", &facts.join(", "), "\n"].concat();
    }
    if let Some(disk) = contents.disks.iter().find(|disk| disk.refused.is_none()) {
        let (archive, id) = (printable(source), printable(&disk.id));
        text += &[
            "import one with: longshore import '",
            &archive,
            "#",
            &id,
            "' OUT\n",
        ]
        .concat();
    }
    text
}
