//! Clusters that are set aside in an image and lie in holes of its file.

use longshore_tests::program::have;

use crate::rig::{MIB, Rig};

#[test]
fn clusters_that_were_set_aside_and_never_written_are_not_read() {
    if !have("qemu-img") || !have("qemu-io") {
        return;
    }
    let rig = Rig::new();
    for (format, options) in [
        ("qcow2", "preallocation=metadata"),
        ("vpc", "subformat=fixed"),
    ] {
        rig.shell(&format!(
            "qemu-img create -q -f {format} -o {options} in 4G"
        ));
        let written = "-c 'write -P 7 1G 100k' -c 'write -P 9 3G 64k'";
        rig.shell(&format!("qemu-io -f {format} {written} in"));
        for target in ["raw", "qcow2"] {
            let args = ["convert", "--progress", "json", "-O", target, "in", "out"];
            let output = rig.ends(&args, 0);
            let text = String::from_utf8_lossy(&output.stdout);
            let done: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let read = done["read"].as_u64().unwrap();
            assert!(
                read < MIB as u64,
                "{format} to {target}: {read} bytes were read"
            );
            let written = "-c 'read -P 7 1G 100k' -c 'read -P 9 3G 64k'";
            let zeros = "-c 'read -P 0 0 1G' -c 'read -P 0 2G 1M'";
            rig.shell(&format!("qemu-io -f {target} {written} {zeros} out"));
        }
    }
}
