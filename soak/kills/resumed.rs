//! One import, killed again and again at random moments and gone on with by its journal: the disk is right in the
//! end, and what a kill costs in bytes of the server is bounded.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use longshore_tests::data;
use longshore_tests::http::{Authority, Page, Server};
use longshore_tests::program::{digest, longshore, run as run_tool, said};

use crate::dice::Dice;

/// Bytes in a second: an import takes seconds, and is killed in the middle of them.
const LINE: u64 = 16 << 20;
/// The longest that a run is left alone, in milliseconds.
const MOST: usize = 1500;
/// What a kill may cost: what came and was not durable yet, by several connections, and what the server sent to
/// nobody.
const COST: u64 = 32 << 20;

/// Something that is imported.
struct Case {
    name: &'static str,
    words: Vec<String>,
    server: Server,
    /// Bytes of what is fetched.
    len: u64,
    /// It can be gone on with in its middle.
    goes_on: bool,
    kills: u32,
    imports: u32,
    sent: u64,
}

/// Kills until there were `kills`, and tells of them.
pub(super) fn run(dir: &Path, disk: &[u8], kills: u32, dice: &mut Dice) -> Result<String> {
    // In memory: how long a busy disk takes for fsync is not what is looked at.
    let place = data::quick_dir();
    let out = place.path().join("out");
    let mut cases = cases(dir, &out)?;
    while cases.iter().map(|case| case.kills).sum::<u32>() < kills {
        for case in &mut cases {
            case.import(dir, &out, disk, dice)
                .with_context(|| case.name.to_owned())?;
        }
    }
    let mut text = format!(
        "## Gone on with\n\nImports to a file in memory, {} MiB/s for each connection, killed after 0 to {MOST} ms until one comes to its end. Each \
         disk was right. `over` is what the server sent more than once, for each kill.\n\n\
         | what | bytes | imports | kills | sent for each import | over |\n| --- | --- | --- | --- | --- | --- |\n",
        LINE >> 20
    );
    let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20);
    for case in &cases {
        let over = case.sent.saturating_sub(case.len * u64::from(case.imports));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            case.name,
            mib(case.len),
            case.imports,
            case.kills,
            mib(case.sent / u64::from(case.imports.max(1))),
            mib(over / u64::from(case.kills.max(1))),
        );
    }
    let sum: u32 = cases.iter().map(|case| case.kills).sum();
    Ok(text + &format!("\n{sum} kills.\n"))
}

fn cases(dir: &Path, out: &Path) -> Result<Vec<Case>> {
    let out = out.display().to_string();
    let case = |name, url: String, more: &[&str], server, len, goes_on| {
        let words = ["import", "--journal-step", "1Mi", "--progress", "off"];
        let mut words: Vec<_> = words.iter().chain(more).map(|&w| w.to_owned()).collect();
        words.extend([url, out.clone()]);
        Case {
            name,
            words,
            server,
            len,
            goes_on,
            kills: 0,
            imports: 0,
            sent: 0,
        }
    };
    let size = |name: &str| std::fs::metadata(dir.join(name)).map(|meta| meta.len());
    let page = |name: &str| Page::file(&dir.join(name)).throttle(LINE);
    let raw = Server::start([("/disk", page("in.raw"))]);
    let packed = Server::start([("/disk", page("in.qcow2"))]);
    let authority = Authority::new();
    authority.write(&dir.join("ca.pem"));
    let secure = Server::start_tls(&authority, [("/disk", page("in.raw"))]);
    let (registry, layer) = registry(dir)?;
    let host = registry.address().to_string();
    Ok(vec![
        case(
            "raw over HTTP",
            raw.url("/disk"),
            &[],
            raw,
            size("in.raw")?,
            true,
        ),
        case(
            "compressed qcow2 over HTTP",
            packed.url("/disk"),
            &[],
            packed,
            size("in.qcow2")?,
            true,
        ),
        case(
            "raw over HTTPS",
            secure.url("/disk"),
            &["--ca", "ca.pem"],
            secure,
            size("in.raw")?,
            true,
        ),
        case(
            "a layer in gzip of a container image",
            format!("docker://{host}/r:v1"),
            &["--insecure-registry", &host],
            registry,
            layer,
            false,
        ),
    ])
}

/// A server that looks like a registry with one image, and the bytes of its layer.
fn registry(dir: &Path) -> Result<(Server, u64)> {
    std::fs::create_dir_all(dir.join("image/disk"))?;
    std::fs::hard_link(dir.join("in.raw"), dir.join("image/disk/disk.img"))?;
    let layer = dir.join("layer.tar.gz");
    let mut tar = Command::new("tar");
    tar.current_dir(dir.join("image"));
    run_tool(tar.arg("-czf").arg(&layer).arg("disk"));
    let config =
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let of_config = digest("sha256", config.as_bytes());
    let of_layer = digest("sha256", &std::fs::read(&layer)?);
    let len = std::fs::metadata(&layer)?.len();
    let kind = "application/vnd.oci.image";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json","config":{{"mediaType":"{kind}.config.v1+json","digest":"{of_config}","size":{}}},"layers":[{{"mediaType":"{kind}.layer.v1.tar+gzip","digest":"{of_layer}","size":{len}}}]}}"#,
        config.len()
    );
    let named = |page: Page, kind: &str| page.header("Content-Type", kind);
    let manifest = named(
        Page::of(manifest.into_bytes()),
        "application/vnd.oci.image.manifest.v1+json",
    );
    let server = Server::start([("/v2/", Page::of(*b"{}"))]);
    server.set("/v2/r/manifests/v1", manifest);
    server.set(
        &format!("/v2/r/blobs/{of_config}"),
        Page::of(config.as_bytes()),
    );
    let blob = Page::file(&layer)
        .etag(Some(&format!("\"{of_layer}\"")))
        .throttle(LINE);
    server.set(&format!("/v2/r/blobs/{of_layer}"), blob);
    Ok((server, len))
}

impl Case {
    fn command(&self, dir: &Path) -> Command {
        let mut command = longshore();
        command.args(&self.words).current_dir(dir);
        command.stdin(Stdio::null());
        command
    }

    /// One import with all its kills.
    fn import(&mut self, dir: &Path, out: &Path, disk: &[u8], dice: &mut Dice) -> Result<()> {
        drop(std::fs::remove_file(out));
        let before = self.server.log().sent;
        let mut kills = 0;
        loop {
            let moment = Duration::from_millis(dice.roll(MOST) as u64);
            let mut child = self
                .command(dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            std::thread::sleep(moment);
            let _ = child.kill();
            if child.wait()?.success() {
                break;
            }
            kills += 1;
            if out.exists() {
                // It was killed once all was done.
                break;
            }
            // What is read from its start never comes to an end otherwise.
            if !self.goes_on && kills % 5 == 0 || kills == 100 {
                let output = self.command(dir).output()?;
                ensure!(output.status.success(), "{}", said(&output));
                break;
            }
        }
        let found = std::fs::read(out)?;
        ensure!(found == disk, "the disk is not the one that was imported");
        let sent = self.server.log().sent - before;
        let each = if self.goes_on { COST } else { self.len + COST };
        // Even without a kill: tables are looked up on the side.
        let most = self.len + COST + u64::from(kills) * each;
        ensure!(
            sent <= most,
            "{sent} bytes were sent with {kills} kills, {most} at the most"
        );
        // A kill at the very end may leave the journal of what is done.
        let left = out.with_file_name(".out.partial");
        ensure!(!left.exists(), "something was left behind");
        self.kills += kills;
        self.imports += 1;
        self.sent += sent;
        Ok(())
    }
}
