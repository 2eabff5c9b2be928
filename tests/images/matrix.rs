//! Format x version x cluster size x codec x content x history.

use longshore_tests::program::have;

use crate::oracle::{Bench, Content};

/// How an image came to be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Fresh,
    /// Written by many coroutines out of order.
    OutOfOrder,
    /// Grown afterwards: the L1 table moves behind the data.
    Resized,
    /// An internal snapshot, then rewritten: clusters that only the snapshot refers to.
    Rewritten,
    Metadata,
    Falloc,
    Full,
}

impl History {
    const COMPRESSED: [Self; 4] = [
        Self::Fresh,
        Self::OutOfOrder,
        Self::Resized,
        Self::Rewritten,
    ];
    const PLAIN: [Self; 7] = [
        Self::Fresh,
        Self::OutOfOrder,
        Self::Resized,
        Self::Rewritten,
        Self::Metadata,
        Self::Falloc,
        Self::Full,
    ];

    fn preallocation(self) -> &'static str {
        match self {
            Self::Metadata => ",preallocation=metadata",
            Self::Falloc => ",preallocation=falloc",
            Self::Full => ",preallocation=full",
            _ => "",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Qcow2 {
    version: &'static str,
    cluster: &'static str,
    codec: Option<&'static str>,
    extended: bool,
}

impl Qcow2 {
    fn histories(self) -> &'static [History] {
        if self.codec.is_some() {
            &History::COMPRESSED
        } else {
            &History::PLAIN
        }
    }

    /// Makes `image.qcow2` of `disk.raw`.
    fn make(self, bench: &Bench, history: History, disk_len: usize) {
        let mut options = format!("compat={},cluster_size={}", self.version, self.cluster);
        if let Some(codec) = self.codec.filter(|codec| *codec != "zlib") {
            options += ",compression_type=";
            options += codec;
        }
        if self.extended {
            options += ",extended_l2=on";
        }
        options += history.preallocation();
        if self.codec.is_some() {
            options += " -c";
        }
        if history == History::OutOfOrder {
            options += " -m 16 -W";
        }
        bench.qemu_img(&format!(
            "convert -f raw -O qcow2 -o {options} disk.raw image.qcow2"
        ));
        match history {
            History::Resized => {
                // A few L2 tables further: a larger L1 table is needed, which goes to the end of the file.
                let grown = match self.cluster {
                    "512" => "8M",
                    "4k" => "32M",
                    "16k" => "256M",
                    "64k" => "4G",
                    "256k" => "64G",
                    _ => "4T",
                };
                bench.qemu_img(&format!("resize -q image.qcow2 {grown}"));
                // Comparing gigabytes of zeros takes too long: back to something smaller, tables stay.
                let back = disk_len.next_multiple_of(1 << 20) + (1 << 20);
                bench.qemu_img(&format!("resize -q --shrink image.qcow2 {back}"));
            }
            History::Rewritten => {
                bench.qemu_img("snapshot -c before image.qcow2");
                let half = disk_len / 2 / 512 * 512;
                bench.qemu_io(
                    "image.qcow2",
                    &[
                        format!("write -q -P 0xA5 0 {}", half.min(200 << 10)),
                        format!(
                            "write -q -z {half} {}",
                            (disk_len - half).min(64 << 10) / 512 * 512
                        ),
                        format!("write -q -P 0x5A {} 512", disk_len / 512 * 512 - 512),
                    ],
                );
            }
            _ => {}
        }
    }

    fn check(self) {
        if !have("qemu-img") {
            return;
        }
        let bench = Bench::new();
        // Small clusters make many tables out of few bytes.
        let len = if self.cluster == "512" {
            2 << 20
        } else {
            5 << 20
        };
        for content in Content::ALL {
            let disk = content.bytes(len);
            bench.file("disk.raw", &disk);
            for &history in self.histories() {
                self.make(&bench, history, disk.len());
                let expected = bench.expected("image.qcow2");
                let case = format!("{self:?} {content:?} {history:?}");
                bench.check("image.qcow2", &expected, &case);
            }
        }
    }
}

macro_rules! qcow2_equals_qemu_img {
    ($($name:ident: $version:literal $cluster:literal $codec:expr, $extended:literal;)*) => {
        $(
            #[test]
            fn $name() {
                Qcow2 {
                    version: $version,
                    cluster: $cluster,
                    codec: $codec,
                    extended: $extended,
                }
                .check();
            }
        )*
    };
}

qcow2_equals_qemu_img! {
    qcow2_v2_clusters_of_512_plain: "0.10" "512" None, false;
    qcow2_v2_clusters_of_4k_zlib: "0.10" "4k" Some("zlib"), false;
    qcow2_v2_clusters_of_64k_plain: "0.10" "64k" None, false;
    qcow2_v2_clusters_of_64k_zlib: "0.10" "64k" Some("zlib"), false;
    qcow2_v2_clusters_of_2m_zlib: "0.10" "2M" Some("zlib"), false;
    qcow2_v3_clusters_of_512_plain: "1.1" "512" None, false;
    qcow2_v3_clusters_of_512_zlib: "1.1" "512" Some("zlib"), false;
    qcow2_v3_clusters_of_512_zstd: "1.1" "512" Some("zstd"), false;
    qcow2_v3_clusters_of_4k_plain: "1.1" "4k" None, false;
    qcow2_v3_clusters_of_4k_zlib: "1.1" "4k" Some("zlib"), false;
    qcow2_v3_clusters_of_4k_zstd: "1.1" "4k" Some("zstd"), false;
    qcow2_v3_clusters_of_64k_plain: "1.1" "64k" None, false;
    qcow2_v3_clusters_of_64k_zlib: "1.1" "64k" Some("zlib"), false;
    qcow2_v3_clusters_of_64k_zstd: "1.1" "64k" Some("zstd"), false;
    qcow2_v3_clusters_of_256k_zstd: "1.1" "256k" Some("zstd"), false;
    qcow2_v3_clusters_of_2m_plain: "1.1" "2M" None, false;
    qcow2_v3_clusters_of_2m_zlib: "1.1" "2M" Some("zlib"), false;
    qcow2_v3_clusters_of_2m_zstd: "1.1" "2M" Some("zstd"), false;
    qcow2_extended_l2_clusters_of_16k_plain: "1.1" "16k" None, true;
    qcow2_extended_l2_clusters_of_64k_plain: "1.1" "64k" None, true;
    qcow2_extended_l2_clusters_of_64k_zlib: "1.1" "64k" Some("zlib"), true;
    qcow2_extended_l2_clusters_of_2m_zstd: "1.1" "2M" Some("zstd"), true;
}

fn vmdk(subformat: &str, rewritten: bool) {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for content in Content::ALL {
        let disk = content.bytes(5 << 20);
        bench.file("disk.raw", &disk);
        for zeroed in ["off", "on"] {
            let options = format!("subformat={subformat},zeroed_grain={zeroed}");
            bench.qemu_img(&format!(
                "convert -f raw -O vmdk -o {options} disk.raw image.vmdk"
            ));
            if rewritten {
                let commands: Vec<_> = [33usize, 3, 70, 12, 50]
                    .iter()
                    .map(|n| n * 65_536)
                    .filter(|at| at + 70_000 < disk.len())
                    .map(|at| format!("write -q -P {} {at} 69632", at / 65_536))
                    .collect();
                bench.qemu_io("image.vmdk", &commands);
            }
            let expected = bench.expected("image.vmdk");
            let case = format!("{subformat} {content:?} zeroed {zeroed} rewritten {rewritten}");
            bench.check("image.vmdk", &expected, &case);
        }
    }
}

#[test]
fn vmdk_stream_optimized() {
    vmdk("streamOptimized", false);
}

#[test]
fn vmdk_monolithic_sparse() {
    vmdk("monolithicSparse", false);
}

#[test]
fn vmdk_monolithic_sparse_with_grains_out_of_order() {
    vmdk("monolithicSparse", true);
}

/// VHD and VDI, as `qemu-img` makes them with these options, and rewritten.
fn blocks(driver: &str, options: &str) {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for content in [Content::Sparse, Content::Incompressible, Content::Unaligned] {
        let disk = content.bytes(5 << 20);
        bench.file("disk.raw", &disk);
        bench.qemu_img(&format!(
            "convert -f raw -O {driver} -o {options} disk.raw image"
        ));
        // qemu takes a fixed VHD for raw unless it is told.
        let expected = bench.expected_as(driver, "image");
        bench.check(
            "image",
            &expected,
            &format!("{driver} {options} {content:?}"),
        );
    }
}

/// Blocks in another order than on the disk, and written again.
fn blocks_out_of_order(driver: &str) {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    bench.qemu_img(&format!("create -q -f {driver} image 13M"));
    let commands: Vec<_> = [11, 3, 12, 7, 3]
        .iter()
        .map(|n| format!("write -q -P {n} {n}M 700k"))
        .collect();
    bench.qemu_io("image", &commands);
    let expected = bench.expected_as(driver, "image");
    bench.check("image", &expected, driver);
}

#[test]
fn vhd_dynamic() {
    blocks("vpc", "subformat=dynamic");
    blocks("vpc", "subformat=dynamic,force_size=on");
    blocks_out_of_order("vpc");
}

#[test]
fn vhd_fixed() {
    blocks("vpc", "subformat=fixed");
    blocks("vpc", "subformat=fixed,force_size=on");
}

#[test]
fn vdi_dynamic_and_static() {
    blocks("vdi", "static=off");
    blocks("vdi", "static=on");
    blocks_out_of_order("vdi");
}

/// The formats that have little to vary, from files and pipes.
fn plain(format: &str, options: &[&str]) {
    if !have("qemu-img") {
        return;
    }
    let bench = Bench::new();
    for content in Content::ALL {
        bench.file("disk.raw", &content.bytes(3 << 20));
        for options in options {
            bench.qemu_img(&format!(
                "convert -f raw -O {format} {options} disk.raw image"
            ));
            let expected = bench.expected("image");
            bench.check(
                "image",
                &expected,
                &format!("{format} {options} {content:?}"),
            );
        }
    }
}

#[test]
fn qcow_version_1() {
    // Not compressed: QEMU 10 ends with 1 after it wrote one.
    plain("qcow", &[""]);
}

#[test]
fn parallels_disks() {
    plain("parallels", &["", "-o cluster_size=64k"]);
}

#[test]
fn vhdx_dynamic_and_fixed() {
    blocks("vhdx", "subformat=dynamic");
    blocks("vhdx", "subformat=dynamic,block_size=1M,log_size=2M");
    blocks("vhdx", "subformat=fixed,block_size=2M");
    blocks_out_of_order("vhdx");
}
