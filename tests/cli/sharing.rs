//! Filesystems on which source and target can have the same blocks. These take root and loop devices.

use longshore_tests::program::{digest, have};
use serde_json::Value;

use crate::mount::Mount;
use crate::rig::{MIB, Rig};

/// XFS makes no smaller ones.
const FILESYSTEM: u64 = 512 << 20;
const DISK: usize = 24 * MIB;

/// Runs `check` on each filesystem that can share blocks and that this machine can mount.
fn where_blocks_are_shared(check: impl Fn(&Rig)) {
    for kind in ["xfs", "btrfs"] {
        let rig = Rig::new();
        let Some(_mount) = Mount::of(&rig, kind, FILESYSTEM) else {
            continue;
        };
        check(&rig);
    }
}

/// Converts into `mnt/out`, and gives the last line of what it reports.
fn convert(rig: &Rig, args: &[&str], from: &str) -> Value {
    let mut all = vec!["convert", "--progress", "json"];
    all.extend(args);
    all.extend([from, "mnt/out"]);
    last_line(&rig.ends(&all, 0).stdout)
}

fn last_line(output: &[u8]) -> Value {
    let text = String::from_utf8_lossy(output);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn bytes_of(report: &Value, what: &str) -> usize {
    usize::try_from(report[what].as_u64().unwrap()).unwrap()
}

#[test]
fn disks_of_every_format_share_their_blocks_where_offsets_are_aligned_alike() {
    if !have("qemu-img") {
        return;
    }
    where_blocks_are_shared(|rig| {
        let disk = rig.image("mnt/raw", DISK);
        // Format, options, and whether its data lies at multiples of a block.
        for (format, options, aligned) in [
            ("raw", "", true),
            ("qcow2", "", true),
            ("qcow2", "-o cluster_size=2M", true),
            ("vmdk", "", true),
            ("vmdk", "-o subformat=twoGbMaxExtentFlat", true),
            ("vhdx", "", true),
            ("vhdx", "-o subformat=fixed", true),
            ("vpc", "-o subformat=fixed,force_size=on", true),
            ("vpc", "-o force_size=on", false),
            ("vdi", "", false),
        ] {
            // Zeros are kept, so that it is known how much there is to share.
            let convert_to = format!("qemu-img convert -f raw -O {format} {options} -S 0");
            rig.shell(&format!("{convert_to} mnt/raw mnt/in"));
            let report = convert(rig, &["--backing", "same-dir"], "mnt/in");
            assert!(rig.read("mnt/out") == disk, "{format} {options}: the disk");
            let (read, written) = (bytes_of(&report, "read"), bytes_of(&report, "written"));
            if aligned {
                assert_eq!(bytes_of(&report, "shared"), DISK, "{format} {options}");
                assert_eq!((read, written), (0, 0), "{format} {options}");
            } else {
                assert!(
                    read > DISK / 2 && written > DISK / 2,
                    "{format} {options}: {report}"
                );
            }
        }
    });
}

#[test]
fn a_vdi_shares_its_blocks_if_they_begin_where_virtualbox_puts_them() {
    if !have("qemu-img") {
        return;
    }
    where_blocks_are_shared(|rig| {
        let disk = rig.image("mnt/raw", DISK);
        rig.shell("qemu-img convert -f raw -O vdi -S 0 mnt/raw mnt/in");
        let mut vdi = rig.read("mnt/in");
        // The field that says where the blocks begin.
        let field = 0x158..0x15c;
        let begin = u32::from_le_bytes(vdi[field.clone()].try_into().unwrap()) as usize;
        vdi[field].copy_from_slice(&(1u32 << 20).to_le_bytes());
        let padding = vec![0; MIB - begin];
        vdi.splice(begin..begin, padding);
        rig.write("mnt/in", &vdi);
        let report = convert(rig, &[], "mnt/in");
        assert!(rig.read("mnt/out") == disk, "the disk");
        assert_eq!(bytes_of(&report, "shared"), DISK);
    });
}

#[test]
fn holes_stay_holes_and_ends_that_fill_no_block_are_copied() {
    where_blocks_are_shared(|rig| {
        let mut disk = vec![0; 9 * MIB + 777];
        disk[MIB..2 * MIB].fill(1);
        disk[8 * MIB..].fill(2);
        let file = std::fs::File::create(rig.path("mnt/in")).unwrap();
        file.set_len(disk.len() as u64).unwrap();
        for at in [MIB..2 * MIB, 8 * MIB..disk.len()] {
            let bytes = &disk[at.clone()];
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, at.start as u64).unwrap();
        }
        drop(file);
        let report = convert(rig, &[], "mnt/in");
        assert!(rig.read("mnt/out") == disk, "the disk");
        assert_eq!(bytes_of(&report, "shared"), 2 * MIB);
        assert_eq!(bytes_of(&report, "written"), 777);
    });
}

#[test]
fn what_is_shared_is_the_disk_as_it_was() {
    where_blocks_are_shared(|rig| {
        let disk = rig.image("mnt/in", DISK);
        let report = convert(rig, &["--sync"], "mnt/in");
        assert_eq!(bytes_of(&report, "shared"), DISK);
        rig.write("mnt/in", &vec![0xEE; DISK]);
        assert!(rig.read("mnt/out") == disk, "a later change of the source");
    });
}

#[test]
fn nothing_is_shared_where_bytes_must_be_read_or_blocks_be_new() {
    where_blocks_are_shared(|rig| {
        let disk = rig.image("mnt/in", 2 * MIB);
        rig.write("elsewhere", &disk);
        for (args, from) in [
            (&["--preallocate", "falloc"][..], "mnt/in"),
            (&["--preallocate", "full"][..], "mnt/in"),
            (&[][..], "elsewhere"),
        ] {
            let report = convert(rig, args, from);
            assert_eq!(bytes_of(&report, "shared"), 0, "{args:?} {from}");
            assert!(rig.read("mnt/out") == disk, "{args:?} {from}");
        }
        // A digest is one of bytes that were read.
        let wrong = format!("sha256:{}", "0".repeat(64));
        rig.ends(&["import", "--checksum", &wrong, "mnt/in", "mnt/new"], 1);
        let right = digest("sha256", &rig.read("mnt/in"));
        let args = [
            "import",
            "--progress",
            "json",
            "--checksum",
            &right,
            "mnt/in",
            "mnt/new",
        ];
        let report = last_line(&rig.ends(&args, 0).stdout);
        assert_eq!(bytes_of(&report, "shared"), 0);
        assert!(rig.read("mnt/new") == disk, "with a digest");
    });
}
