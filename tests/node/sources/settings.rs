//! What holds for all imports of a cluster: the proxy, the memory that pods may have.

use longshore_tests::data::image;
use longshore_tests::http::{Authority, Page, Server};
use serde_json::{Value, json};

use super::super::rig::{Case, case_alone, disk, holds_sparse};
use super::{annotated, volume};

/// Settings of the one `CDI`, taken back in the end, also of a test that fails.
struct Settings<'a> {
    case: &'a Case,
    names: Vec<&'static str>,
}

impl<'a> Settings<'a> {
    /// Sets them, and waits until `field` of what is in force is `value`.
    fn set(
        case: &'a Case,
        config: &Value,
        field: &str,
        value: &str,
        names: &[&'static str],
    ) -> Self {
        let this = Self {
            case,
            names: names.to_vec(),
        };
        this.patch(config);
        let wanted = format!("--for=jsonpath={{.status.{field}}}={value}");
        case.everywhere(&["wait", "cdiconfig/config", &wanted, "--timeout=60s"]);
        this
    }

    fn patch(&self, config: &Value) {
        let change = json!({"spec": {"config": config}});
        self.case.patch("cdi/cdi", &change);
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        let mut nothing = json!({});
        for name in &self.names {
            nothing[*name] = Value::Null;
        }
        self.patch(&nothing);
    }
}

#[test]
fn a_proxy_with_an_authority_of_its_own_is_the_way_to_servers() {
    let Some(case) = case_alone() else { return };
    let disk = disk(47);
    let authority = Authority::new();
    // Asked as a proxy, for a host that nobody else knows.
    let proxy = case.serve_tls(&authority, Page::of(disk.clone()));
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "authority-of-the-proxy", "namespace": "cdi"},
        "data": {"ca.pem": authority.pem()},
    });
    case.apply(&map);
    let address = proxy.url("");
    let config = json!({"importProxy": {
        "HTTPProxy": address, "noProxy": "", "trustedCAProxy": "authority-of-the-proxy",
    }});
    let field = "importProxy.HTTPProxy";
    let _settings = Settings::set(&case, &config, field, &address, &["importProxy"]);
    let (one, other) = (case.folder_for("volume"), case.folder_for("claim"));
    let url = "http://images.invalid/disk";
    volume(&case, "volume", &json!({"http": {"url": url}}));
    annotated(&case, "claim", &[("import.endpoint", url)]);
    case.succeeded("volume");
    holds_sparse(&one, &disk);
    case.filled("claim");
    holds_sparse(&other, &disk);
    let asked = proxy.log().requests;
    assert!(
        asked.iter().all(|request| request.target == url),
        "{asked:?}"
    );
}

/// What is imported: a format, the disk in it, and who has it.
type Served = (&'static str, Vec<u8>, Server);

/// So many imports of each at the same time, in pods with as much memory.
fn within(case: &Case, limit: &str, times: usize, servers: &[Served]) {
    let config = json!({"podResourceRequirements": {
        "limits": {"memory": limit, "cpu": "2"}, "requests": {"memory": "60M", "cpu": "10m"},
    }});
    let field = "defaultPodResourceRequirements.limits.memory";
    let names = ["podResourceRequirements"];
    let _settings = Settings::set(case, &config, field, limit, &names);
    let mut imports = Vec::new();
    for (format, disk, server) in servers {
        for time in 0..times {
            let name = format!("{format}-{}-{time}", limit.to_lowercase());
            let folder = case.folder_for(&name);
            let source = json!({"http": {"url": server.url("/disk")}});
            volume(case, &name, &source);
            imports.push((name, folder, disk));
        }
    }
    for (name, folder, disk) in imports {
        case.succeeded(&name);
        holds_sparse(&folder, disk);
        let volume = case.get(&format!("dv/{name}"));
        assert_eq!(volume["status"]["restartCount"], 0, "{volume}");
    }
}

#[test]
fn ten_imports_take_no_more_memory_than_pods_may_have() {
    let Some(case) = case_alone() else { return };
    let qcow2 = "qemu-img convert -c -f raw -O qcow2 disk.raw image";
    let vmdk = "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw image";
    let servers = [
        ("raw", 51, "cp disk.raw image"),
        ("qcow2", 52, qcow2),
        ("vmdk", 53, vmdk),
        ("xz", 54, "xz -T1 -6 -c disk.raw > image"),
        ("gz", 55, "gzip -1 -c disk.raw > image"),
    ]
    .map(|(format, seed, script)| {
        let disk = disk(seed);
        let server = case.serve(Page::of(image(&disk, script)));
        (format, disk, server)
    });
    within(&case, "128Mi", 2, &servers);
    within(&case, "200Mi", 1, &servers);
}
