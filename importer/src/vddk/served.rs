//! What VMware's library tells in its log of the other side: people who look after migrations ask for it.

use std::sync::{Arc, Mutex, PoisonError};

/// Longest name that is believed.
const MOST: usize = 253;

/// Which library serves a disk, and from which host, as far as it is known by now. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    version: Option<String>,
    host: Option<String>,
}

impl Served {
    /// The library's version, such as `8.0.2`.
    pub fn version(&self) -> Option<String> {
        self.known(|known| known.version.clone())
    }

    /// The hypervisor that has the disk.
    pub fn host(&self) -> Option<String> {
        self.known(|known| known.host.clone())
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what a line of nbdkit's log tells.
    pub(super) fn hear(&self, line: &str) {
        if let Some(version) = version(line) {
            self.known(|known| known.version = Some(version.to_owned()));
        }
        if let Some(host) = host(line) {
            self.known(|known| known.host = Some(host.to_owned()));
        }
    }
}

/// `.. VMware VixDiskLib (7.0.3) Release build-18705163`
fn version(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("VMware VixDiskLib (")?;
    let (version, rest) = rest.split_once(')')?;
    let is_version = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let sane = (1..=MOST).contains(&version.len()) && version.chars().all(is_version);
    (sane && rest.contains("build-")).then_some(version)
}

/// `.. Opened 'vpxa-nfcssl://[datastore] web/web.vmdk@esx15.example.org:902' (0xa): ..`
fn host(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Opened '")?;
    let (opened, _) = rest.split_once("' (0x")?;
    let (_, place) = opened.rsplit_once('@')?;
    let (host, _) = place.rsplit_once(':')?;
    let is_host =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    ((1..=MOST).contains(&host.len()) && host.chars().all(is_host)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_version_and_the_host_and_nothing_else_does() {
        let served = Served::default();
        for line in [
            "nbdkit: debug: VMware VixDiskLib 7.0 Release build-15832853",
            "nbdkit: debug: VMware VixDiskLib (<b>) Release build-1",
            "nbdkit: debug: VMware VixDiskLib () Release build-1",
            "nbdkit: vddk[1]: debug: Opened 'web.vmdk' (0xa): custom",
            "nbdkit: vddk[1]: debug: Opened 'x://a@b c:902' (0xa): custom",
        ] {
            served.hear(line);
            assert_eq!((served.version(), served.host()), (None, None), "{line}");
        }
        let shared = served.clone();
        shared.hear("nbdkit: debug: VMware VixDiskLib (7.0.3) Release build-15832853");
        shared.hear(
            "nbdkit: vddk[1]: debug: DISKLIB-LINK  : Opened 'vpxa-nfcssl://[ds] a@b/c.vmdk@esx15.test.lan:902' (0xa): custom, 50331648 sectors / 24 GB.",
        );
        assert_eq!(served.version().as_deref(), Some("7.0.3"));
        assert_eq!(served.host().as_deref(), Some("esx15.test.lan"));
    }
}
