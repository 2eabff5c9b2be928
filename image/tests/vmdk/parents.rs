//! Delta links: their parents come through the gate or not at all.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use longshore_image::{
    DenyAll, Error, ErrorKind, Limits, OpenGate, ReadAt, Reference, ReferenceKind, Result, vmdk,
};

use crate::builder::{Builder, GRAIN_SECTORS as G, SECTOR, pattern, put32};
use crate::support::{Bench, forward_fails, open, read_chain, same};

/// Lets in the files of a directory, and remembers which.
#[derive(Debug, Clone)]
struct Directory {
    path: PathBuf,
    asked: Arc<Mutex<Vec<Reference>>>,
}

impl OpenGate for Directory {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        if let Ok(mut asked) = self.asked.lock() {
            asked.push(reference.clone());
        }
        let bytes = std::fs::read(self.path.join(&reference.name))
            .map_err(|e| Error::io("opening a parent", e))?;
        Ok(Arc::new(bytes))
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(self.clone())
    }
}

fn gate(path: PathBuf) -> Directory {
    Directory {
        path,
        asked: Arc::default(),
    }
}

fn delta(parent: &str, cid: &str) -> Builder {
    let builder = Builder::sparse(100 * G);
    Builder {
        descriptor: builder.descriptor.replace(
            "parentCID=ffffffff",
            &format!("parentCID={cid}\nparentFileNameHint=\"{parent}\""),
        ),
        ..builder
    }
}

#[test]
fn a_chain_of_parents_reads_as_qemu_img_reads_it() {
    let Some(bench) = Bench::new("vmdk") else {
        return;
    };
    bench.write("raw", &pattern(1, 9 << 20));
    bench.img("convert -f raw -O vmdk raw base.vmdk");
    bench.img("create -f vmdk -b base.vmdk -F vmdk middle.vmdk");
    bench.io("middle.vmdk", &["write -P 1 1M 2M", "write -P 2 8M 512"]);
    bench.img("create -f vmdk -o zeroed_grain=on -b middle.vmdk -F vmdk top.vmdk");
    bench.io("top.vmdk", &["write -P 3 2M 1000k", "write -z 64k 64k"]);
    let gate = gate(bench.path(""));
    let image = vmdk::open(Arc::new(bench.read("top.vmdk")), &gate, &Limits::default()).unwrap();
    let names: Vec<_> = gate
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.name.clone())
        .collect();
    assert_eq!(names, ["middle.vmdk", "base.vmdk"]);
    assert_eq!(image.info().references[0].name, "middle.vmdk");
    same(
        &read_chain(image).unwrap(),
        &bench.oracle("top.vmdk"),
        "the chain",
    );
}

#[test]
fn parents_are_denied_unless_the_gate_lets_them_in() {
    let built = delta("../../etc/passwd", "12345678").build(&[]);
    let e = open(&built.bytes).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("../../etc/passwd"), "{e}");
    // A stream has no gate, so its answer is the same.
    forward_fails(&built.bytes, ErrorKind::Denied);
    let reference = Reference {
        name: "x".to_owned(),
        format: None,
        kind: ReferenceKind::Extent,
    };
    assert!(DenyAll.open(&reference).is_err());
}

#[test]
fn a_parent_that_changed_or_names_itself_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("base", &Builder::sparse(100 * G).build(&[]).bytes);
    write("loop", &delta("loop", "12345678").build(&[]).bytes);
    let gate = gate(dir.path().to_owned());
    for (parent, cid, kind) in [
        ("base", "12345679", ErrorKind::Malformed),
        ("loop", "12345678", ErrorKind::Malformed),
        ("gone", "12345678", ErrorKind::Io),
    ] {
        let bytes = delta(parent, cid).build(&[]).bytes;
        let e = vmdk::open(Arc::new(bytes), &gate, &Limits::default()).unwrap_err();
        assert_eq!(e.kind(), kind, "{parent}: {e:?}");
    }
    let bytes = delta("base", "12345678").build(&[]).bytes;
    vmdk::open(Arc::new(bytes), &gate, &Limits::default()).unwrap();
}

#[test]
fn what_is_not_in_a_delta_is_the_parents_and_zeroed_grains_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let grain = G as usize * SECTOR;
    let base = Builder::sparse(100 * G).build(&[(0, pattern(1, grain)), (G, pattern(2, grain))]);
    std::fs::write(dir.path().join("base"), &base.bytes).unwrap();
    let mut top = Builder {
        flags: 7,
        ..delta("base", "12345678")
    }
    .build(&[]);
    put32(&mut top.bytes, top.tables[&0], 1);
    let gate = gate(dir.path().to_owned());
    let image = vmdk::open(Arc::new(top.bytes), &gate, &Limits::default()).unwrap();
    let mut disk = vec![0; 100 * grain];
    disk[grain..2 * grain].copy_from_slice(&pattern(2, grain));
    same(&read_chain(image).unwrap(), &disk, "the chain");
}
