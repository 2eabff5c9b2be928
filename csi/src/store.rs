//! What there is, on disk, so that a driver that is started again knows it.
//!
//! ```text
//! STATE/volumes/ID.json    a Volume; it exists if this does
//! STATE/volumes/ID.img     its bytes
//! STATE/snapshots/ID.json  a Snapshot
//! STATE/snapshots/ID.img   its bytes
//! STATE/*/.*               what was being made
//! ```
//! The record comes last and goes first: [`Store::open`] removes all that has none.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Block,
    Filesystem,
}

/// Whose bytes a volume began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Snapshot(String),
    Volume(String),
}

/// A volume. Its name is its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub size: u64,
    pub kind: Kind,
    pub origin: Option<Origin>,
}

/// A snapshot. Its name is its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    pub source: String,
    pub size: u64,
    /// Seconds since 1970.
    pub created: u64,
}

/// Everything that there is.
#[derive(Debug)]
pub struct Store {
    pub volumes: Shelf<Volume>,
    pub snapshots: Shelf<Snapshot>,
}

impl Store {
    /// Takes up a folder, and removes what a driver that was killed was in the middle of.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        Ok(Self {
            volumes: Shelf::open(folder.join("volumes"))?,
            snapshots: Shelf::open(folder.join("snapshots"))?,
        })
    }
}

/// Things of one sort, each a record and an image.
#[derive(Debug)]
pub struct Shelf<T> {
    folder: PathBuf,
    /// What somebody works on.
    busy: Mutex<HashSet<String>>,
    freed: Condvar,
    things: std::marker::PhantomData<T>,
}

/// Somebody works on the thing of this name.
#[derive(Debug)]
pub struct Turn<'a> {
    busy: &'a Mutex<HashSet<String>>,
    freed: &'a Condvar,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.name);
        self.freed.notify_all();
    }
}

/// Whether a name may be part of a path: letters, digits, dots, dashes and underscores, no dot in front.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

impl<T: Serialize + DeserializeOwned> Shelf<T> {
    fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let shelf = Self {
            folder,
            busy: Mutex::default(),
            freed: Condvar::new(),
            things: std::marker::PhantomData,
        };
        for path in shelf.files()? {
            let draft = file_name(&path).starts_with('.');
            let orphan = !path.with_extension("json").exists();
            if draft || orphan {
                tracing::info!(path = %path.display(), "removing what was not finished");
                fs::remove_file(&path)?;
            }
        }
        Ok(shelf)
    }

    /// Waits until nobody else works on this one.
    pub fn turn(&self, name: &str) -> Turn<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while busy.contains(name) {
            busy = self
                .freed
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(name.to_owned());
        Turn {
            busy: &self.busy,
            freed: &self.freed,
            name: name.to_owned(),
        }
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn record(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Where its bytes are. The name is plain.
    pub fn image(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.img"))
    }

    /// The thing of this name. There is none of a name that is not plain.
    pub fn get(&self, name: &str) -> io::Result<Option<T>> {
        if !is_plain(name) {
            return Ok(None);
        }
        match fs::read(self.record(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all, in order.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let files = self.files()?;
        let records = files
            .iter()
            .filter_map(|path| file_name(path).strip_suffix(".json"));
        let mut names: Vec<String> = records
            .filter(|name| is_plain(name))
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// All of them.
    pub fn all(&self) -> io::Result<Vec<T>> {
        let mut all = Vec::new();
        for name in self.names()? {
            // It may have gone since.
            all.extend(self.get(&name)?);
        }
        Ok(all)
    }

    /// Makes one: `fill` makes the image at the path that it is given. If that fails, nothing is left.
    pub fn make(
        &self,
        name: &str,
        thing: &T,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let draft = self.folder.join(format!(".{name}.img"));
        let image = self.image(name);
        let made = fill(&draft)
            .and_then(|()| fs::rename(&draft, &image))
            .and_then(|()| self.note(name, thing));
        if made.is_err() {
            // What cannot be removed now is when the driver starts again.
            for left in [&draft, &image] {
                drop(fs::remove_file(left));
            }
        }
        made
    }

    /// Writes down what is known of one.
    pub fn note(&self, name: &str, thing: &T) -> io::Result<()> {
        let draft = self.folder.join(format!(".{name}.json"));
        fs::write(&draft, serde_json::to_vec(thing)?)?;
        fs::rename(&draft, self.record(name))
    }

    /// Removes one, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        for path in [self.record(name), self.image(name)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            size: 1 << 20,
            kind: Kind::Block,
            origin: Some(Origin::Snapshot("s".to_owned())),
        }
    }

    #[test]
    fn what_was_made_is_there_after_a_restart_and_what_was_begun_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let fill = |path: &Path| fs::write(path, "bytes");
        store.volumes.make("a", &volume("a"), fill).unwrap();
        store.volumes.make("b", &volume("b"), fill).unwrap();
        let names = ["c.img", ".d.img", ".e.json"].map(|n| folder.path().join("volumes").join(n));
        for name in &names {
            fs::write(name, "half").unwrap();
        }
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.volumes.names().unwrap(), ["a", "b"]);
        assert_eq!(store.volumes.get("a").unwrap(), Some(volume("a")));
        assert_eq!(fs::read(store.volumes.image("a")).unwrap(), b"bytes");
        assert!(names.iter().all(|name| !name.exists()), "{names:?}");
        store.volumes.remove("a").unwrap();
        store.volumes.remove("a").unwrap();
        assert_eq!(store.volumes.all().unwrap(), [volume("b")]);
        assert!(!store.volumes.image("a").exists());
    }

    #[test]
    fn a_failure_in_the_middle_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let fill = |path: &Path| {
            fs::write(path, "half")?;
            Err(io::Error::other("no more"))
        };
        let made = store.volumes.make("a", &volume("a"), fill);
        assert_eq!(made.unwrap_err().to_string(), "no more");
        assert_eq!(store.volumes.files().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            ".hidden",
            "ä",
            &"x".repeat(129),
        ] {
            assert!(!is_plain(name), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.volumes.get("../volumes/x").unwrap(), None);
        assert!(is_plain("pvc-0b1c_2.d"));
    }

    #[test]
    fn only_one_works_on_a_thing_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let _turn = store.volumes.turn("a");
                        let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
            drop((store.volumes.turn("b"), store.volumes.turn("c")));
        });
    }
}
