//! `info`: what an image is.

mod archive;

use std::os::unix::fs::MetadataExt as _;

use longshore_image::chain::Chain;
use longshore_image::{Compression, ExtentKind, Info, ReferenceKind};
use longshore_transfer::Inspection;
use serde::Serialize;

use crate::bytes::exact;
use crate::failure::Failure;
use crate::look::Look;
use crate::output::Data;
use crate::source::Place;

/// Prints it.
pub(crate) fn run(look: &Look) -> Result<(), Failure> {
    if let Some(contents) = look.place.contents(&look.source_options, &look.options)? {
        return archive::print(look, &contents);
    }
    let found = look
        .inspect()
        .and_then(|inspection| Facts::of(look, &inspection));
    let mut data = Data::open();
    if look.json {
        match &found {
            Ok(facts) => data.json_document(&facts.json())?,
            Err(failure) => data.json_document(&not_shown(look, failure))?,
        }
    } else if let Ok(facts) = &found {
        data.write(&facts.text())?;
    }
    data.finish()?;
    found.map(drop)
}

/// A number, or why there is none.
type Known = Result<u64, &'static str>;

/// What `--json` prints. Fields are added, never renamed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    source: &'a str,
    format: &'static str,
    variant: Option<&'a str>,
    virtual_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size_reason: Option<&'static str>,
    allocated_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_bytes_reason: Option<&'static str>,
    file_size: Option<u64>,
    disk_usage: Option<u64>,
    cluster_size: Option<u64>,
    compression: &'static str,
    wrappers: &'a [&'static str],
    features: &'a [String],
    references: Vec<ShownReference<'a>>,
    refused: Option<Why>,
}

/// A file that the image names.
#[derive(Debug, Serialize)]
struct ShownReference<'a> {
    kind: &'static str,
    name: &'a str,
    format: Option<&'a str>,
    opened: bool,
}

/// The same for what is not to be had: `refused` if that is the image's fault, else `error`.
#[derive(Debug, Serialize)]
struct NotShown {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Why>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Why>,
}

#[derive(Debug, Serialize)]
struct Why {
    reason: &'static str,
    message: String,
}

/// Everything that is shown.
#[derive(Debug)]
struct Facts {
    source: String,
    info: Info,
    wrappers: Vec<&'static str>,
    virtual_size: Known,
    allocated: Known,
    file_size: Option<u64>,
    /// Bytes that the file takes on its filesystem.
    disk_usage: Option<u64>,
    opened: bool,
}

impl Facts {
    fn of(look: &Look, inspection: &Inspection) -> Result<Self, Failure> {
        let Inspection {
            info,
            virtual_size,
            wrappers,
            source_len,
            chain,
        } = inspection;
        let whole = "only known once the whole stream was read; `longshore convert` tells it";
        let virtual_size = virtual_size.ok_or(if wrappers.is_empty() {
            "a raw disk is as long as its stream, and this one does not say how long it is; \
             `longshore convert` tells it at the end"
        } else {
            "a raw disk is as long as its stream, and how long a compressed one becomes is known \
             when it is decompressed; `longshore convert` tells it at the end"
        });
        let opened = chain
            .as_ref()
            .is_some_and(|chain| chain.layers().len() > 1 || look.opens_references);
        let elsewhere = |kind| matches!(kind, ReferenceKind::DataFile | ReferenceKind::Extent);
        let allocated = match chain {
            Some(_) if !opened && info.references.iter().any(|r| elsewhere(r.kind)) => {
                Err("its data is in other files, which were not opened")
            }
            Some(chain) => Ok(allocated(chain, &look.place.name())?),
            None => Err(whole),
        };
        let disk_usage = match &look.place {
            Place::File(path) => std::fs::metadata(path)
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|meta| meta.blocks().saturating_mul(512)),
            Place::Stdin(_) | Place::Remote(_) => None,
        };
        Ok(Self {
            source: look.place.name(),
            info: info.clone(),
            wrappers: wrappers.iter().map(|wrapper| wrapper.name()).collect(),
            virtual_size,
            allocated,
            file_size: *source_len,
            disk_usage,
            opened,
        })
    }

    fn json(&self) -> Shown<'_> {
        let info = &self.info;
        let references = info.references.iter().map(|reference| ShownReference {
            kind: kind_name(reference.kind),
            name: &reference.name,
            format: reference.format.as_deref(),
            opened: self.opened,
        });
        Shown {
            source: &self.source,
            format: info.format.name(),
            variant: (!info.variant.is_empty()).then_some(info.variant.as_str()),
            virtual_size: self.virtual_size.ok(),
            virtual_size_reason: self.virtual_size.err(),
            allocated_bytes: self.allocated.ok(),
            allocated_bytes_reason: self.allocated.err(),
            file_size: self.file_size,
            disk_usage: self.disk_usage,
            cluster_size: info.cluster_size,
            compression: compression(info.compression),
            wrappers: &self.wrappers,
            features: &info.features,
            references: references.collect(),
            refused: None,
        }
    }

    fn text(&self) -> String {
        let Self {
            source,
            info,
            wrappers,
            virtual_size,
            allocated,
            file_size,
            disk_usage,
            opened,
        } = self;
        let mut text = String::new();
        let mut put = |key: &str, value: &str| {
            let key = format!("{key}:");
            text += &[&format!("{key:<14} "), printable(value).as_str(), "\n"].concat();
        };
        let known = |known: &Known| match known {
            Ok(amount) => exact(*amount),
            Err(reason) => (*reason).to_owned(),
        };
        put("image", source);
        let format = format!("{} {}", info.format.name(), info.variant);
        put("format", format.trim_end());
        if !wrappers.is_empty() {
            put("compressed as", &wrappers.join(", inside it "));
        }
        put("virtual size", &known(virtual_size));
        put("allocated", &known(allocated));
        if let Some(size) = file_size {
            put("file size", &exact(*size));
        }
        if let Some(usage) = disk_usage {
            put("disk usage", &exact(*usage));
        }
        if let Some(size) = info.cluster_size {
            put("cluster size", &exact(size));
        }
        put("compression", compression(info.compression));
        if !info.features.is_empty() {
            put("features", &info.features.join(", "));
        }
        for reference in &info.references {
            let opened = if *opened { "opened" } else { "not opened" };
            let value = format!("{} ({opened})", reference.name);
            put(&kind_name(reference.kind).replace('-', " "), &value);
        }
        text
    }
}

/// Names come from images: no control characters reach the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = (!c.is_control()).then_some(c);
            let escaped = plain.is_none().then(|| c.escape_default());
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Zlib => "zlib",
        Compression::Zstd => "zstd",
    }
}

fn kind_name(kind: ReferenceKind) -> &'static str {
    match kind {
        ReferenceKind::Backing => "backing-file",
        ReferenceKind::DataFile => "data-file",
        _ => "extent-file",
    }
}

/// Guest bytes that are not known to be zero.
fn allocated(chain: &Chain, name: &str) -> Result<u64, Failure> {
    let mut sum = 0_u64;
    for extent in chain.extents() {
        let extent = extent.map_err(|source| longshore_transfer::Error::Image {
            context: format!("can't read the image {name}"),
            source,
        })?;
        if !matches!(extent.extent.kind, ExtentKind::Zero | ExtentKind::Parent) {
            sum = sum.saturating_add(extent.visible.end.saturating_sub(extent.visible.start));
        }
    }
    Ok(sum)
}

fn not_shown(look: &Look, failure: &Failure) -> NotShown {
    let why = Some(Why {
        reason: failure.reason(),
        message: failure.message(),
    });
    let (refused, error) = if failure.refuses_image() {
        (why, None)
    } else {
        (None, why)
    };
    NotShown {
        source: look.place.name(),
        refused,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_images_cannot_speak_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("größe 1"), "größe 1");
    }
}
