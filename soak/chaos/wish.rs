//! What is asked for: sources, the disks they hold, and the volumes they are to fill.

use std::sync::Arc;

use longshore_tests::data;
use longshore_tests::http::{Fault, Page, Ranges, Rate, Server};
use longshore_tests::program::digest;
use longshore_tests::stores::{ACCESS_KEY, SECRET_KEY};
use serde_json::{Value, json};

use crate::dice::Dice;

/// A file to serve, and the disk in it.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) file: Arc<[u8]>,
    pub(crate) disk: Arc<[u8]>,
    pub(crate) digest: String,
}

/// How images are made of `disk.raw`: what they are called, and what a shell runs.
const FORMATS: [(&str, &str); 7] = [
    ("raw", "cp disk.raw image"),
    ("qcow2", "qemu-img convert -O qcow2 disk.raw image"),
    (
        "qcow2 in zlib",
        "qemu-img convert -c -O qcow2 disk.raw image",
    ),
    (
        "vmdk",
        "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw image",
    ),
    ("raw in gz", "gzip -1 -c disk.raw > image"),
    ("raw in xz", "xz -T1 -1 -c disk.raw > image"),
    (
        "qcow2 in gz",
        "qemu-img convert -O qcow2 disk.raw it && gzip -1 -c it > image",
    ),
];
/// MiB of the disks. All claims are larger.
const SIZES: [usize; 3] = [4, 9, 16];

/// Everything there is to import.
pub(crate) struct Images {
    pub(crate) all: Vec<Image>,
    /// One whose disk fits into no claim.
    pub(crate) large: Image,
}

impl Images {
    pub(crate) fn make() -> Self {
        let mut all = Vec::new();
        for (seed, size) in SIZES.into_iter().enumerate() {
            let disk = data::disk(size << 20, 900 + seed as u64);
            for (name, script) in FORMATS {
                all.push(image(name, script, &disk));
            }
        }
        let script = "qemu-img create -q -f qcow2 image 96M";
        let large = image("an image that is too large", script, &[]);
        Self { all, large }
    }

    pub(crate) fn pick(&self, dice: &mut Dice) -> &Image {
        dice.pick(&self.all)
    }

    /// Another disk in the same format.
    pub(crate) fn instead_of(&self, name: &str, disk: &Arc<[u8]>) -> Option<&Image> {
        let mut all = self.all.iter();
        all.find(|image| image.name == name && !Arc::ptr_eq(&image.disk, disk))
    }
}

fn image(name: &'static str, script: &str, disk: &[u8]) -> Image {
    let file = data::image(disk, script);
    Image {
        name,
        digest: digest("sha256", &file),
        file: file.into(),
        disk: disk.into(),
    }
}

/// What has to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    Filled,
    /// The server has no such page, and the condition says so.
    Missing,
    /// It fails for good.
    WrongSum,
    /// The condition says so.
    TooSmall,
}

/// What people make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A `DataVolume` whose claim the importer mounts itself.
    Direct,
    /// One whose claim is filled by a populator.
    Populator,
    /// A claim with annotations, and no `DataVolume`.
    Annotated,
    /// A claim that names a `VolumeImportSource`, and no `DataVolume`.
    Populated,
}

impl Form {
    pub(crate) fn has_volume(self) -> bool {
        matches!(self, Self::Direct | Self::Populator)
    }
}

/// Where the bytes come from.
pub(crate) enum Source {
    Http {
        server: Server,
        rate: Rate,
        /// The page at its best.
        page: Box<Page>,
    },
    /// An object that is there already, at this address.
    S3(String),
    Blank,
}

/// A volume that is wanted.
pub(crate) struct Wish {
    pub(crate) form: Form,
    pub(crate) class: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) checksum: Option<String>,
    pub(crate) goal: Goal,
    pub(crate) source: Source,
    /// The format.
    pub(crate) content: &'static str,
    /// The disks it may end up with: one, unless the source was changed midway.
    pub(crate) disks: Vec<Arc<[u8]>>,
    /// Bytes of the source.
    pub(crate) size: u64,
}

/// A page that all connections share a line of so many KiB in a second for.
fn page(file: &Arc<[u8]>, tag: &str, rate: &Rate) -> Page {
    let page = Page::of(Arc::clone(file));
    page.etag(Some(&format!("\"{tag}\""))).throttle_by(rate)
}

/// Troubles of servers, for the next requests.
pub(crate) fn troubles(dice: &mut Dice) -> (&'static str, Vec<Fault>) {
    let times = 1 + dice.roll(4);
    let at = (dice.roll(1024) as u64) << 10;
    let (name, fault) = match dice.roll(7) {
        0 => ("answers cut short", Fault::Cut(at)),
        1 => ("answers that stall", Fault::Stall(at)),
        2 => ("503", Fault::Status(503)),
        3 => ("500", Fault::Status(500)),
        4 => ("503 with Retry-After", Fault::RetryAfter(1)),
        5 => ("connections that close", Fault::HangUp),
        _ => ("what is no HTTP", Fault::Garbage),
    };
    (name, vec![fault; times])
}

impl Wish {
    /// Whatever the dice say.
    pub(crate) fn of(
        dice: &mut Dice,
        images: &Images,
        address: &str,
        object: &(String, usize),
    ) -> Self {
        let (class, mode, form) = *dice.pick(&[
            ("local-path", "Filesystem", Form::Direct),
            ("csi", "Filesystem", Form::Direct),
            ("csi", "Block", Form::Direct),
            ("csi-wffc", "Filesystem", Form::Direct),
            ("csi-wffc", "Block", Form::Direct),
            ("csi", "Filesystem", Form::Populator),
            ("csi", "Block", Form::Populator),
            ("csi-wffc", "Filesystem", Form::Populator),
            ("csi-wffc", "Block", Form::Populator),
            ("csi", "Filesystem", Form::Populator),
            ("csi", "Block", Form::Populator),
            ("csi", "Filesystem", Form::Annotated),
            ("csi", "Block", Form::Populated),
        ]);
        let mut image = images.pick(dice);
        let mut goal = Goal::Filled;
        if form.has_volume() {
            goal = *dice.pick(&[
                Goal::Missing,
                Goal::WrongSum,
                Goal::TooSmall,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
                Goal::Filled,
            ]);
        }
        if goal == Goal::TooSmall {
            image = &images.large;
        }
        let mut wish = Self {
            form,
            class,
            mode,
            checksum: None,
            goal,
            source: Source::Blank,
            content: image.name,
            disks: vec![Arc::clone(&image.disk)],
            size: image.file.len() as u64,
        };
        match dice.roll(12) {
            0 if goal == Goal::Filled => {
                wish.content = "blank";
                wish.disks = vec![Arc::new([])];
                wish.size = 0;
                return wish;
            }
            1 if goal == Goal::Filled => {
                let image = &images.all[object.1];
                wish.content = image.name;
                wish.disks = vec![Arc::clone(&image.disk)];
                wish.size = image.file.len() as u64;
                wish.source = Source::S3(object.0.clone());
                return wish;
            }
            2..=4 if goal == Goal::Filled && form.has_volume() => {
                wish.checksum = Some(image.digest.clone());
            }
            _ => {}
        }
        if goal == Goal::WrongSum {
            wish.checksum = Some(format!("sha256:{}", "0".repeat(64)));
        }
        let rate = Rate::of_all((256 << dice.roll(5)) << 10);
        let mut page = page(&image.file, &image.digest, &rate);
        if dice.roll(5) == 0 {
            page = page.ranges(Ranges::None);
        }
        let page = Box::new(page);
        let mut first = Page::clone(&page);
        if dice.roll(3) == 0 {
            for fault in troubles(dice).1 {
                first = first.fault(fault);
            }
        }
        if goal == Goal::Missing {
            first = Page::status(404);
        }
        let server = Server::start_on(address, None, [("/disk", first)]);
        wish.source = Source::Http { server, rate, page };
        wish
    }

    /// Serves another disk from now on. Only for what demands no digest.
    pub(crate) fn replace(&mut self, images: &Images) -> bool {
        let Source::Http {
            server,
            rate,
            page: best,
        } = &mut self.source
        else {
            return false;
        };
        let last = self.disks.last();
        let other = last.and_then(|disk| images.instead_of(self.content, disk));
        let Some(other) = other.filter(|_| self.checksum.is_none() && self.goal == Goal::Filled)
        else {
            return false;
        };
        **best = page(&other.file, &other.digest, rate);
        server.set("/disk", Page::clone(best));
        self.disks.push(Arc::clone(&other.disk));
        true
    }

    /// Has the line be as slow as the slowest; false if it was lifted.
    pub(crate) fn slow_down(&mut self) -> bool {
        let Source::Http { server, rate, page } = &mut self.source else {
            return false;
        };
        // Answers under way keep the line they have.
        *rate = Rate::of_all(128 << 10);
        **page = Page::clone(page).throttle_by(rate);
        server.set("/disk", Page::clone(page));
        true
    }

    /// Nothing is wrong with the source from now on, and nothing slow.
    pub(crate) fn calm(&self) {
        if let Source::Http { server, rate, page } = &self.source {
            rate.lift();
            if self.goal != Goal::Missing {
                server.set("/disk", Page::clone(page));
            }
        }
    }

    /// Bytes that the source sent, and requests it got.
    pub(crate) fn sent(&self) -> Option<(u64, usize)> {
        let Source::Http { server, .. } = &self.source else {
            return None;
        };
        let log = server.log();
        Some((log.sent, log.requests.len()))
    }

    fn source(&self) -> Value {
        match &self.source {
            Source::Http { server, .. } => {
                let mut http = json!({"url": server.url("/disk")});
                if let Some(sum) = &self.checksum {
                    http["checksum"] = json!(sum);
                }
                json!({"http": http})
            }
            Source::S3(url) => json!({"s3": {"url": url, "secretRef": "keys"}}),
            Source::Blank => json!({"blank": {}}),
        }
    }

    /// What is applied.
    pub(crate) fn objects(&self, name: &str) -> Vec<Value> {
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": self.class,
            "volumeMode": self.mode,
            "resources": {"requests": {"storage": "64Mi"}},
        });
        let claim = |spec: &Value, annotations: Value| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "annotations": annotations},
                "spec": spec,
            })
        };
        match self.form {
            Form::Direct | Form::Populator => {
                let by_populator = (self.form == Form::Populator).to_string();
                vec![json!({
                    "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
                    "metadata": {"name": name, "annotations": {
                        "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
                        "cdi.kubevirt.io/storage.usePopulator": by_populator,
                    }},
                    "spec": {"source": self.source(), "pvc": spec},
                })]
            }
            Form::Annotated => {
                let (kind, endpoint) = match &self.source {
                    Source::Http { server, .. } => ("http", server.url("/disk")),
                    Source::S3(url) => ("s3", url.clone()),
                    Source::Blank => ("none", String::new()),
                };
                let mut annotations = json!({});
                let mut set = |key: &str, value: &str| {
                    annotations[format!("cdi.kubevirt.io/storage.import.{key}")] = json!(value);
                };
                set("source", kind);
                if !endpoint.is_empty() {
                    set("endpoint", &endpoint);
                }
                if kind == "s3" {
                    set("secretName", "keys");
                }
                vec![claim(&spec, annotations)]
            }
            Form::Populated => {
                spec["dataSourceRef"] = json!({
                    "apiGroup": "cdi.kubevirt.io", "kind": "VolumeImportSource", "name": name,
                });
                let source = json!({
                    "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "VolumeImportSource",
                    "metadata": {"name": name}, "spec": {"source": self.source()},
                });
                vec![source, claim(&spec, json!({}))]
            }
        }
    }
}

/// The keys to the store.
pub(crate) fn keys() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"accessKeyId": ACCESS_KEY, "secretKey": SECRET_KEY},
    })
}
