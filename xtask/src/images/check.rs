//! Whether images are what they are said to be: `cargo xtask images --check`.
//!
//! Made twice they have the same bytes; a real registry takes them and gives them back as they were; skopeo reads
//! the layouts; and what is in the importer's runs as the user that pods run as.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{IMPORTER, USER, copy, in_layout, in_registry, make_in, root_of};
use crate::shell::Run;
use crate::{paths, say};

/// Checks; gives how many things were.
pub(crate) fn check(release: bool) -> Result<u64> {
    let folder = paths::target().join("images-check");
    let first = make_in(&folder, "check", release)?;
    let again = folder.join("again");
    let second = make_in(&again, "check", release)?;
    let mut checks = 0;
    for ((name, one), (_, other)) in first.iter().zip(&second) {
        Run::new("cmp")
            .args([one, other])
            .quiet()
            .capture()
            .with_context(|| format!("{name} was made twice, and is not the same"))?;
        say::line(&format!("{name}: the same bytes when made again"));
        checks += 1;
    }
    fs::remove_dir_all(&again).context("removing the second ones")?;

    let registry = Registry::start(&folder)?;
    let layouts = folder.join("oci");
    paths::make_dir(&layouts)?;
    for (name, archive) in &first {
        let layer = layer(&format!("docker-archive:{}", archive.display()))?;
        for place in [
            in_layout(&layouts, name),
            in_registry(&format!("{}/longshore", registry.address), name),
        ] {
            copy(archive, &place)?;
            let found = self::layer(&place)?;
            if found != layer {
                bail!("{place} has the layer {found}, and {name} was made with {layer}");
            }
            say::line(&format!("{place}: what was made"));
            checks += 1;
        }
    }
    drop(registry);

    let root = root_of(&folder, IMPORTER);
    for (command, expected) in [
        (&["nbdkit", "--version"][..], "nbdkit "),
        (&["nbdkit", "vddk", "--dump-plugin"], "name=vddk"),
        (&["busybox", "id", "-u"], "107"),
    ] {
        let said = within(&root, command)?;
        if !said.contains(expected) {
            bail!("{} in the importer's image said: {said}", command.join(" "));
        }
        say::line(&format!(
            "{}: {}",
            command.join(" "),
            said.lines().next().unwrap_or_default()
        ));
        checks += 1;
    }
    fs::remove_dir_all(&folder).context("removing what was checked")?;
    Ok(checks)
}

/// The digest of an image's only layer, unpacked, and that it is one of ours.
fn layer(place: &str) -> Result<String> {
    let said = Run::new("skopeo")
        .args(["inspect", "--config", "--tls-verify=false", place])
        .quiet()
        .capture()?;
    let config: Value = serde_json::from_str(&said).context("reading an image's configuration")?;
    if config["config"]["User"] != USER {
        bail!("{place} runs as {}", config["config"]["User"]);
    }
    let digest = config["rootfs"]["diff_ids"][0].as_str();
    Ok(digest.context("an image has a layer")?.to_owned())
}

/// What a program of an image says, as the user of pods.
fn within(root: &Path, command: &[&str]) -> Result<String> {
    Run::new("chroot")
        .arg(format!("--userspec={USER}"))
        .arg(root)
        .args(["/bin/busybox", "env", "PATH=/usr/bin:/bin"])
        .args(command)
        .quiet()
        .capture()
}

/// Debian's docker-registry. It ends with this.
struct Registry {
    child: Child,
    address: String,
    data: PathBuf,
}

impl Registry {
    fn start(folder: &Path) -> Result<Self> {
        let data = folder.join("registry");
        paths::make_dir(&data)?;
        let config = folder.join("registry.yml");
        paths::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
                data.display()
            ),
        )?;
        let mut child = Run::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .quiet()
            .into_command()
            .env_remove("OTEL_TRACES_EXPORTER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting docker-registry")?;
        let said = child.stderr.take().context("a piped child has an output")?;
        let mut registry = Self {
            child,
            address: String::new(),
            data,
        };
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            let end = rest.find(['"', ',']).unwrap_or(rest.len());
            Some(rest.get(..end)?.to_owned())
        });
        registry.address = address.context("docker-registry ended without listening")?;
        // It ends if nobody takes what it says.
        thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.data));
    }
}
