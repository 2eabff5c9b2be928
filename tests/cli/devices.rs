//! Block devices, and filesystems that are too small. These take root and loop devices.

use longshore_tests::device::Loop;
use longshore_tests::program::{have, said};

use crate::mount::Mount;
use crate::rig::{MIB, Rig, error_of};

#[test]
fn a_device_full_of_old_data_holds_the_disk_and_zeros_afterwards() {
    let rig = Rig::new();
    rig.write("backing", &vec![0xff; 24 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    let bytes = rig.image("in.raw", 17 * MIB + 512);
    rig.ends(&["convert", "--sync", "in.raw", device.name()], 0);
    let disk = std::fs::read(device.path()).unwrap();
    assert!(disk[..bytes.len()] == bytes, "the disk");
    // An image with large holes, over what is there now.
    let sparse = std::fs::File::create(rig.path("sparse.raw")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 4096], 9 << 20).unwrap();
    rig.ends(&["import", "sparse.raw", device.name()], 0);
    let disk = std::fs::read(device.path()).unwrap();
    assert!(
        disk[..20 << 20] == rig.read("sparse.raw"),
        "holes are zeros"
    );
    let pipe = rig.fed(&["convert", "--sync", "-", device.name()], &bytes);
    assert!(pipe.status.success(), "{}", said(&pipe));
    assert!(
        std::fs::read(device.path()).unwrap()[..bytes.len()] == bytes,
        "from a pipe"
    );
}

/// By the geometry at its end a fixed VHD may end before its data does, which a stream tells last.
#[test]
fn a_disk_that_turns_out_shorter_is_cut_on_a_device() {
    let rig = Rig::new();
    rig.write("backing", &vec![0xff; 8 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    if !have("qemu-img") {
        return;
    }
    rig.write("in.raw", &vec![7; 5 * MIB]);
    rig.shell("qemu-img convert -O vpc -o subformat=fixed in.raw in.vhd");
    let mut vhd = rig.read("in.vhd");
    let footer = vhd.len() - 512;
    // Below the first MiB, which is written last, and above it.
    for cylinders in [1_u8, 60] {
        vhd[footer + 56..footer + 58].copy_from_slice(&[0, cylinders]);
        crate::vhd::seal(&mut vhd, footer, 512, 64);
        let disk = usize::from(cylinders) * 4 * 17 * 512;
        let piped = rig.fed(&["convert", "-", device.name()], &vhd);
        assert!(piped.status.success(), "{}", said(&piped));
        let found = std::fs::read(device.path()).unwrap();
        assert!(found[..disk].iter().all(|b| *b == 7), "{cylinders}");
        assert!(found[disk..5 * MIB].iter().all(|b| *b == 0), "{cylinders}");
        assert_eq!(found[8 * MIB - 1], 0xff);
    }
}

#[test]
fn a_device_that_is_too_small_is_4_and_is_not_touched() {
    let rig = Rig::new();
    rig.write("backing", &vec![0xff; 2 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    rig.image("in.raw", 3 * MIB);
    let output = rig.ends(&["convert", "in.raw", device.name()], 4);
    assert!(error_of(&output).contains(device.name()));
    assert!(
        std::fs::read(device.path())
            .unwrap()
            .iter()
            .all(|b| *b == 0xff)
    );
    rig.ends(&["convert", device.name(), device.name()], 1);
}

#[test]
fn a_copy_to_a_device_that_is_cut_short_leaves_nothing_that_boots() {
    let rig = Rig::new();
    rig.write("backing", &vec![0xff; 16 * MIB]);
    let Some(device) = Loop::over(&rig.path("backing")) else {
        return;
    };
    // More than the device holds, and only the end of the stream tells.
    let output = rig.fed(&["convert", "-", device.name()], &vec![0xee; 17 * MIB]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let head = std::fs::read(device.path()).unwrap();
    assert!(
        head[..MIB].iter().all(|b| *b == 0),
        "the first MiB comes last"
    );
}

#[test]
fn a_full_filesystem_is_4_and_keeps_nothing() {
    let rig = Rig::new();
    let Some(mount) = Mount::of(&rig, "ext4", 16 << 20) else {
        return;
    };
    let noise = vec![0xa5; 40 * MIB];
    rig.write("in.raw", &noise);
    for args in [
        &["import", "--no-resume", "in.raw", "mnt/out.raw"][..],
        &["convert", "in.raw", "mnt/out.raw"],
        &["convert", "--cache", "none", "in.raw", "mnt/out.raw"],
        &["convert", "-O", "qcow2", "in.raw", "mnt/out.qcow2"],
        &[
            "convert",
            "--preallocate",
            "falloc",
            "in.raw",
            "mnt/out.raw",
        ],
    ] {
        let output = rig.ends(args, 4);
        assert!(
            error_of(&output).contains("no space left"),
            "{}",
            said(&output)
        );
        assert_eq!(mount.names(), Vec::<String>::new(), "{args:?}");
    }
    let output = rig.fed(&["import", "-", "mnt/out.raw"], &noise);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(mount.names(), Vec::<String>::new());
}
