//! `info`: what an image is.

use std::os::unix::fs::MetadataExt as _;

use longshore_image::chain::Chain;
use longshore_image::{Compression, ExtentKind, Format, Info, ReferenceKind};
use longshore_transfer::Inspection;
use serde_json::{Map, Value, json};

use crate::bytes::exact;
use crate::failure::Failure;
use crate::look::Look;
use crate::output::Data;
use crate::source::Place;

/// Prints it.
pub(crate) fn run(look: &Look) -> Result<(), Failure> {
    let found = look.inspect().and_then(|inspection| Facts::of(look, &inspection));
    let mut data = Data::open();
    if look.json {
        let text = match &found {
            Ok(facts) => facts.json(),
            Err(failure) => refusal(look, failure),
        };
        data.line(&format!("{text:#}"))?;
    } else if let Ok(facts) = &found {
        data.write(&facts.text())?;
    }
    data.finish()?;
    found.map(drop)
}

/// A number, or why there is none.
type Known = Result<u64, &'static str>;

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
    backing_opened: bool,
}

impl Facts {
    fn of(look: &Look, inspection: &Inspection) -> Result<Self, Failure> {
        let Inspection {
            info,
            wrappers,
            source_len,
            chain,
        } = inspection;
        let whole = "only known once the whole stream was read; `longshore convert` tells it";
        let virtual_size = if chain.is_none() && info.format == Format::Raw {
            // A raw disk is as long as its stream, and a compressed stream does not say.
            match (wrappers.is_empty(), source_len) {
                (true, Some(len)) => Ok(*len),
                _ => Err(whole),
            }
        } else {
            Ok(info.virtual_size)
        };
        let allocated = match chain {
            Some(chain) => Ok(allocated(chain, &look.place.name())?),
            None => Err(whole),
        };
        let disk_usage = match &look.place {
            Place::File(path) => std::fs::metadata(path)
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|meta| meta.blocks().saturating_mul(512)),
            Place::Stdin | Place::Remote(_) => None,
        };
        Ok(Self {
            source: look.place.name(),
            info: info.clone(),
            wrappers: wrappers.iter().map(|wrapper| wrapper.name()).collect(),
            virtual_size,
            allocated,
            file_size: *source_len,
            disk_usage,
            backing_opened: chain.as_ref().is_some_and(|c| c.layers().len() > 1),
        })
    }

    fn json(&self) -> Value {
        let Self {
            source,
            info,
            wrappers,
            virtual_size,
            allocated,
            file_size,
            disk_usage,
            backing_opened,
        } = self;
        let references: Vec<Value> = info
            .references
            .iter()
            .map(|reference| {
                json!({
                    "kind": kind_name(reference.kind),
                    "name": reference.name,
                    "format": reference.format,
                    "opened": backing_opened,
                })
            })
            .collect();
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("source", json!(source));
        put("format", json!(info.format.name()));
        put("variant", json!(some(&info.variant)));
        put("virtualSize", json!(virtual_size.ok()));
        if let Err(reason) = virtual_size {
            put("virtualSizeReason", json!(reason));
        }
        put("allocatedBytes", json!(allocated.ok()));
        if let Err(reason) = allocated {
            put("allocatedBytesReason", json!(reason));
        }
        put("fileSize", json!(file_size));
        put("diskUsage", json!(disk_usage));
        put("clusterSize", json!(info.cluster_size));
        put("compression", json!(compression(info.compression)));
        put("wrappers", json!(wrappers));
        put("features", json!(info.features));
        put("references", json!(references));
        put("refused", Value::Null);
        Value::Object(object)
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
            backing_opened,
        } = self;
        let mut text = String::new();
        let mut put = |key: &str, value: &str| {
            text += &format!("{:<14} {}\n", format!("{key}:"), printable(value));
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
            let opened = if *backing_opened { "opened" } else { "not opened" };
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

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
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

/// The JSON of an image that is not to be had: `refused` if it is the image's fault, else `error`.
fn refusal(look: &Look, failure: &Failure) -> Value {
    let why = json!({"reason": failure.reason(), "message": failure.message()});
    let key = if failure.refuses_image() { "refused" } else { "error" };
    json!({"source": look.place.name(), key: why})
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
