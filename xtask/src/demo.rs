//! `cargo xtask demo`: from nothing to a booted VM. Installs, builds, makes a guest image, serves
//! it over HTTP and hands the example manifest to `longshore run`, as a user would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::Server;
use crate::shell::Run;
use crate::{cargo, guest, install, paths, say};

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Boot this disk image instead of the small guest made here (needs a way to reach it)
    #[arg(long)]
    url: Option<String>,
    /// Leave the VM running with its console attached, until it powers off (Ctrl+] lets go of the console, Ctrl-C then ends the VM)
    #[arg(long)]
    keep: bool,
    /// How to run the VM's processors
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    accel: String,
    /// With what the tests have built, which is not optimised but for the code that touches every byte
    #[arg(long)]
    debug: bool,
}

impl Args {
    /// With what the tests have built.
    pub(crate) fn of_tests() -> Self {
        Self {
            url: None,
            keep: false,
            accel: "auto".to_owned(),
            debug: true,
        }
    }
}

/// For the import and a boot under emulation: the whole takes seconds, but a busy machine is not a
/// broken one.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Where the example manifest has what the demo changes.
const URL: &str = "spec.dataVolumeTemplates[0].spec.source.http.url";
const SIZE: &str = "spec.dataVolumeTemplates[0].spec.storage.resources.requests.storage";
const MEMORY: &str = "spec.template.spec.domain.memory.guest";
const USER_DATA: &str = "spec.template.spec.volumes[1].cloudInitNoCloud.userData";

/// Room for the usual cloud image: the disk is sparse, so what is not used costs nothing.
const ROOMY: (&str, &str) = ("20Gi", "1Gi");

pub(crate) fn run(args: &Args) -> Result<()> {
    install::run(&install::Args::default())?;
    say::line("\nBuilding longshore; the first time takes some minutes.");
    let programs = if args.debug {
        cargo::programs()?
    } else {
        let build = cargo::locked("build").args(["--release", "--package", "longshore-cli"]);
        build.check()?;
        paths::target().join("release")
    };
    let longshore = programs.join("longshore");
    let state = paths::target().join("demo");
    drop(fs::remove_dir_all(&state));
    let plan = Plan {
        longshore,
        state,
        accel: &args.accel,
    };
    if let Some(url) = &args.url {
        return plan.attached(&[(URL, url), (SIZE, ROOMY.0), (MEMORY, ROOMY.1)], url);
    }
    let image = guest::make()?.join(guest::QCOW2);
    let server = Server::start(&image)?;
    if args.keep {
        let stay = "#cloud-config\n#longshore: stay\n";
        plan.attached(&[(URL, &server.url()), (USER_DATA, stay)], &server.url())
    } else {
        plan.checked(&server, &image)
    }
}

struct Plan<'a> {
    longshore: PathBuf,
    state: PathBuf,
    accel: &'a str,
}

impl Plan<'_> {
    fn command(&self, changes: &[(&str, &str)]) -> Run {
        let run = Run::new(&self.longshore).dir(paths::root());
        let run = run
            .args([
                "run",
                "-f",
                "examples/vm.yaml",
                "--accel",
                self.accel,
                "--state",
            ])
            .arg(&self.state);
        changes.iter().fold(run, |run, (path, value)| {
            run.arg("--set").arg(format!("{path}={value}"))
        })
    }

    /// Gives the terminal to the VM.
    fn attached(&self, changes: &[(&str, &str)], url: &str) -> Result<()> {
        say::line(&format!(
            "\nThe disk comes from {url} and stays in {}.\n",
            self.state.display()
        ));
        match self.command(changes).code()? {
            0 => Ok(()),
            code => bail!("longshore run ended with exit code {code}"),
        }
    }

    /// Runs the guest to its end and checks what it said.
    fn checked(&self, server: &Server, image: &Path) -> Result<()> {
        let size = fs::metadata(image)
            .with_context(|| format!("looking at {}", image.display()))?
            .len();
        say::line(&format!(
            "\nServing {} at {}",
            say::bytes(size),
            server.url()
        ));
        let timeout = TIMEOUT.as_secs().to_string();
        let run = self
            .command(&[(URL, &server.url())])
            .args(["--timeout", &timeout]);
        let started = Instant::now();
        let mut expected = Expected::new();
        // Longshore's own limit speaks first, and says more.
        let status = run.watch(TIMEOUT + Duration::from_mins(1), |line| expected.hear(line))?;
        let took = started.elapsed();
        expected
            .judge(status)
            .with_context(|| format!("what it left is in {}", self.state.display()))?;
        let (bytes, requests) = server.served();
        let disk = disk_in(&self.state).map_or(String::new(), |(size, allocated)| {
            format!(
                " into a disk of {} that takes {}",
                say::bytes(size),
                say::bytes(allocated)
            )
        });
        say::line(&format!(
            "\nWhat happened, in {}.{} s:\n\
             - {} of compressed qcow2 came over HTTP (requests: {requests}){disk};\n\
             - a Linux guest booted from it, and found its files to be those that went in;\n\
             - it read its cloud-init data and powered itself off: longshore ended with exit code 0.\n\
             `cargo xtask demo --keep` stays at its shell; `longshore run -f examples/vm-debian.yaml` boots a machine of Debian's.",
            took.as_secs(),
            took.subsec_millis() / 100,
            say::bytes(bytes),
        ));
        Ok(())
    }
}

/// What the guest has still to say.
#[derive(Debug)]
struct Expected {
    missing: Vec<&'static str>,
}

impl Expected {
    fn new() -> Self {
        Self {
            missing: guest::SAYS.to_vec(),
        }
    }

    fn hear(&mut self, line: &str) {
        self.missing.retain(|text| !line.contains(text));
    }

    fn judge(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("longshore run failed ({status})");
        }
        if let Some(text) = self.missing.first() {
            bail!("the VM ended well, but its console never said `{text}`");
        }
        Ok(())
    }
}

/// The largest file in the state folder: its length and what it takes on the host's disk.
fn disk_in(state: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut folders = vec![state.to_owned()];
    let mut largest = None;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let facts = entry.metadata().ok()?;
            if facts.is_dir() {
                folders.push(entry.path());
            } else {
                largest = largest.max(Some((facts.len(), facts.blocks() * 512)));
            }
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_manifest_has_everything_that_the_demo_changes() {
        let manifest = paths::read(&paths::root().join("examples/vm.yaml")).unwrap();
        for path in [URL, SIZE, MEMORY, USER_DATA] {
            let last = path.rsplit('.').next().unwrap();
            assert!(manifest.contains(&format!("{last}:")), "{path}");
        }
    }

    #[test]
    fn the_demo_succeeds_only_if_the_guest_said_everything_and_the_vm_ended_well() {
        let (fine, failed) = (ExitStatus::from_raw(0), ExitStatus::from_raw(1 << 8));
        let heard = |lines: &[&str]| {
            let mut expected = Expected::new();
            for line in lines {
                expected.hear(line);
            }
            expected
        };
        let all: Vec<String> = guest::SAYS
            .iter()
            .map(|text| format!("console: {text} x"))
            .collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        heard(&all).judge(fine).unwrap();
        let text = heard(&all).judge(failed).unwrap_err().to_string();
        assert!(text.contains("exit status: 1"), "{text}");
        for (index, said) in guest::SAYS.iter().enumerate() {
            let mut lines = all.clone();
            lines.remove(index);
            let text = heard(&lines).judge(fine).unwrap_err().to_string();
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn the_command_is_what_a_user_would_type() {
        let plan = Plan {
            longshore: "longshore".into(),
            state: "/state".into(),
            accel: "tcg",
        };
        let text = plan.command(&[(URL, "http://host/x")]).text();
        let expected = "longshore run -f examples/vm.yaml --accel tcg --state /state --set \
                        spec.dataVolumeTemplates[0].spec.source.http.url=http://host/x";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_disk_is_the_largest_file_in_the_state() {
        let folder = std::env::temp_dir().join(format!("longshore-demo-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("console.log"), [1; 10]).unwrap();
        fs::write(folder.join("a/b/disk.img"), [1; 5000]).unwrap();
        assert_eq!(disk_in(&folder).map(|(size, _)| size), Some(5000));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(disk_in(&folder), None);
    }
}
