//! What is measured: an image, where it lies, how it is read, and what everyone is held to.

use anyhow::{Result, bail};

use super::fixture::images::{self, Image};

/// No disk is smaller, however small a share of a small disk would be.
const LEAST_DISK: u64 = 64 << 20;

/// Where source and result are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory: what is measured is decoding.
    Tmpfs,
    /// End to end.
    Disk,
}

impl Place {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        }
    }
}

/// How the source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    File,
    /// From a web server on loopback.
    Http {
        /// With the source's sha256 asked for.
        digest: bool,
    },
}

/// What a cgroup allows. Where a result lies in memory it counts as memory, so there only the
/// processor is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    /// Thousandths of a processor.
    pub(super) cpu: Option<u32>,
    pub(super) memory: Option<u64>,
    /// Whether we also run without it, to see what it costs.
    pub(super) beside_unlimited: bool,
}

/// An importer's pod, as CDI asks for it.
const POD: Limit = Limit {
    name: "750m",
    cpu: Some(750),
    memory: Some(600 << 20),
    beside_unlimited: false,
};
/// The same where the result is in memory.
const POD_CPU: Limit = Limit {
    memory: None,
    ..POD
};
/// Much less memory than the result has bytes: what is written has to leave as it comes.
pub(super) const WRITE_BACK: Limit = Limit {
    name: "128M",
    cpu: None,
    memory: Some(128 << 20),
    beside_unlimited: true,
};

/// Cases that belong together, and are chosen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Files,
    Limits,
    Import,
    Threads,
    Clusters,
    Allocation,
}

impl Group {
    pub(super) const ALL: [Self; 6] = [
        Self::Files,
        Self::Limits,
        Self::Import,
        Self::Threads,
        Self::Clusters,
        Self::Allocation,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Limits => "limits",
            Self::Import => "import",
            Self::Threads => "sweep-threads",
            Self::Clusters => "sweep-clusters",
            Self::Allocation => "sweep-allocation",
        }
    }

    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Files => "File to file, every format.",
            Self::Limits => {
                "In a cgroup: 750m is a pod of 0.75 processors (and 600 MiB on disk), 128M one of 128 MiB."
            }
            Self::Import => {
                "Over HTTP from nginx on loopback, fsync of the result for everyone. \"today's import\" downloads to a scratch file, then runs `qemu-img convert -t writeback`; both files are fsynced."
            }
            Self::Threads => {
                "Everybody on the first N processors (taskset), and Longshore with --threads N; +tN above the processors there are is a check that nothing regresses."
            }
            Self::Clusters => "qcow2 of other cluster sizes, compressed with zlib and not.",
            Self::Allocation => "A disk of which so many percent have data, in pieces of 1 MiB.",
        }
    }

    /// The group a case belongs to, by its name alone: raw data is all that a report has.
    pub(super) fn of(case: &str) -> Self {
        let (stem, rest) = case.split_once('@').unwrap_or((case, ""));
        let tail = stem.rsplit('-').next().unwrap_or_default();
        let number = |text: &str| text.chars().all(|letter| letter.is_ascii_digit());
        let extra = rest.split_once('+').map_or("", |(_, extra)| extra);
        if stem.starts_with("http-") {
            Self::Import
        } else if extra.strip_prefix('t').is_some_and(number) {
            Self::Threads
        } else if !extra.is_empty() {
            Self::Limits
        } else if tail.strip_prefix('a').is_some_and(number) && tail.len() > 1 {
            Self::Allocation
        } else if tail.starts_with(|letter: char| letter.is_ascii_digit()) {
            Self::Clusters
        } else {
            Self::Files
        }
    }
}

/// One image, in one place, on one road.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) group: Group,
    pub(super) image: Image,
    pub(super) place: Place,
    pub(super) road: Road,
    pub(super) threads: Option<usize>,
    pub(super) limit: Option<Limit>,
}

impl Case {
    fn new(group: Group, image: Image, place: Place) -> Self {
        Self {
            group,
            image,
            place,
            road: Road::File,
            threads: None,
            limit: None,
        }
    }

    fn http(image: Image, place: Place, digest: bool) -> Self {
        Self {
            road: Road::Http { digest },
            ..Self::new(Group::Import, image, place)
        }
    }

    fn limited(image: Image, place: Place, limit: Limit) -> Self {
        Self {
            limit: Some(limit),
            ..Self::new(Group::Limits, image, place)
        }
    }

    /// `qcow2-zlib@tmpfs`, `qcow2-zlib@disk+128M`, `http-raw@disk+sha256`.
    pub(super) fn name(&self) -> String {
        let mut name = format!("{}@{}", self.stem(), self.place.name());
        if let Some(threads) = self.threads {
            name.extend([format!("+t{threads}")]);
        }
        if let Some(limit) = self.limit {
            name.extend(["+", limit.name]);
        }
        if self.digest() {
            name.push_str("+sha256");
        }
        name
    }

    fn stem(&self) -> String {
        match self.road {
            Road::File => self.image.name.clone(),
            Road::Http { .. } => format!("http-{}", self.image.name),
        }
    }

    pub(super) fn digest(&self) -> bool {
        self.road == Road::Http { digest: true }
    }

    pub(super) fn is_http(&self) -> bool {
        self.road != Road::File
    }

    /// Bytes of the disk it is made of: less where there are many cases, or slow peers.
    pub(super) fn disk(&self, size: u64) -> u64 {
        let part = match self.group {
            Group::Files | Group::Limits => 1,
            // Some peers take half a minute for 200 MiB of such clusters.
            Group::Clusters if self.image.clusters_below(4096) => 16,
            Group::Clusters => 4,
            Group::Import | Group::Threads | Group::Allocation => 2,
        };
        let megabytes = (size / part) >> 20;
        (megabytes << 20).max(LEAST_DISK)
    }

    /// How much of a run's time it deserves, beside others: about what a round takes, and twice that
    /// where numbers are published one by one and not as a row of a sweep.
    pub(super) fn weight(&self, size: u64, contenders: u32) -> u32 {
        let mib = u32::try_from(self.disk(size) >> 20).unwrap_or(u32::MAX);
        let each = match self.place {
            Place::Tmpfs => 400 + mib,
            Place::Disk => 600 + mib + mib / 2,
        };
        let importance = match self.group {
            Group::Files | Group::Limits | Group::Import => 2,
            Group::Threads | Group::Clusters | Group::Allocation => 1,
        };
        each.saturating_mul(contenders).saturating_mul(importance)
    }

    fn plain(&self) -> bool {
        self.limit.is_none() && self.threads.is_none() && !self.digest()
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.name() == name
            || self.group.name() == name
            || (name == "http" && self.group == Group::Import)
            || (name == "sweeps" && self.group.name().starts_with("sweep-"))
            || (self.plain() && self.stem() == name)
            || (self.group == Group::Files && self.place.name() == name)
    }
}

/// Every case there is, in the order in which they are measured, on so many processors.
pub(super) fn all(processors: usize) -> Vec<Case> {
    use Place::{Disk, Tmpfs};
    let image = images::named;
    let mut cases = Vec::new();
    for place in [Tmpfs, Disk] {
        cases.extend(images::files().map(|image| Case::new(Group::Files, image, place)));
    }
    cases.extend([
        Case::limited(image("qcow2-zlib"), Tmpfs, POD_CPU),
        Case::limited(image("qcow2-zlib"), Disk, POD),
        Case::limited(image("qcow2-zlib"), Disk, WRITE_BACK),
        Case::limited(image("qcow2"), Disk, WRITE_BACK),
    ]);
    for name in ["qcow2-zlib", "vmdk-stream", "qcow2", "raw"] {
        cases.push(Case::http(image(name), Disk, false));
    }
    cases.push(Case::http(image("vmdk-stream"), Tmpfs, false));
    cases.push(Case::http(image("qcow2"), Disk, true));
    cases.extend(images::packed().map(|image| Case::http(image, Tmpfs, false)));
    let mut threads: Vec<usize> = (0..usize::BITS)
        .map(|power| 1 << power)
        .take_while(|threads| *threads < processors)
        .collect();
    threads.extend([processors, processors + 1]);
    for name in ["qcow2-zlib", "qcow2-zstd", "vmdk-stream"] {
        cases.extend(threads.iter().map(|threads| Case {
            threads: Some(*threads),
            ..Case::new(Group::Threads, image(name), Tmpfs)
        }));
    }
    cases.extend(images::clusters().map(|image| Case::new(Group::Clusters, image, Tmpfs)));
    cases.extend(images::spread().map(|image| Case::new(Group::Allocation, image, Tmpfs)));
    cases
}

/// What `--quick` measures unless it is told something else.
pub(super) const QUICK: &[&str] = &[
    "qcow2-zlib@tmpfs",
    "qcow2-zstd@tmpfs",
    "vmdk-stream@tmpfs",
    "qcow2@tmpfs",
    "raw@tmpfs",
    "http-qcow2-zlib@disk",
];

/// Those of `names`, or all.
pub(super) fn chosen(names: &[String], processors: usize) -> Result<Vec<Case>> {
    let mut cases = all(processors);
    for name in names {
        if !cases.iter().any(|case| case.is_wanted(name)) {
            let groups = Group::ALL.map(Group::name).join(" ");
            let all: Vec<String> = cases.iter().map(Case::name).collect();
            bail!(
                "there is no case {name}; there are the groups {groups} sweeps, and: {}",
                all.join(" ")
            );
        }
    }
    if !names.is_empty() {
        cases.retain(|case| names.iter().any(|name| case.is_wanted(name)));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Ok(chosen(&wanted, 2)?.iter().map(Case::name).collect())
    }

    #[test]
    fn a_case_is_chosen_by_its_name_its_format_its_place_or_its_group() {
        assert_eq!(names(&["qcow2@disk"]).unwrap(), ["qcow2@disk"]);
        assert_eq!(names(&["qcow2"]).unwrap(), ["qcow2@tmpfs", "qcow2@disk"]);
        let files = names(&["tmpfs"]).unwrap();
        assert_eq!(files.len(), images::files().count());
        assert_eq!(names(&["files"]).unwrap().len(), 2 * files.len());
        assert_eq!(names(&["http-raw"]).unwrap(), ["http-raw@disk"]);
        assert_eq!(names(&["http"]).unwrap(), names(&["import"]).unwrap());
        assert_eq!(
            names(&["qcow2-zlib@disk+128M"]).unwrap(),
            ["qcow2-zlib@disk+128M"]
        );
        assert_eq!(
            names(&["sweeps"]).unwrap().len(),
            names(&["sweep-threads", "sweep-clusters", "sweep-allocation"])
                .unwrap()
                .len()
        );
        assert_eq!(names(QUICK).unwrap().len(), QUICK.len());
    }

    #[test]
    fn no_two_cases_have_one_name_and_each_name_tells_its_group() {
        for processors in [1, 2, 6] {
            let cases = all(processors);
            let mut names: Vec<String> = cases.iter().map(Case::name).collect();
            for case in &cases {
                assert_eq!(Group::of(&case.name()), case.group, "{}", case.name());
            }
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn threads_go_from_one_to_one_more_than_there_are_processors() {
        let threads = |processors| -> Vec<usize> {
            all(processors)
                .iter()
                .filter(|case| case.image.name == "qcow2-zlib")
                .filter_map(|case| case.threads)
                .collect()
        };
        assert_eq!(threads(1), [1, 2]);
        assert_eq!(threads(2), [1, 2, 3]);
        assert_eq!(threads(6), [1, 2, 4, 6, 7]);
    }

    #[test]
    fn a_large_case_on_disk_deserves_more_time_than_a_row_of_a_sweep() {
        let weight = |name: &str| {
            let cases = chosen(&[name.to_owned()], 2).unwrap();
            cases[0].weight(1 << 30, 5)
        };
        assert!(weight("qcow2-zlib@disk") > weight("qcow2-zlib@tmpfs"));
        assert!(weight("qcow2-zlib@tmpfs") > 2 * weight("qcow2-zlib@tmpfs+t1"));
        assert!(weight("qcow2-256k@tmpfs") > weight("qcow2-512@tmpfs"));
    }

    #[test]
    fn an_unknown_case_is_an_error_that_lists_the_known_ones() {
        let text = names(&["qcow3"]).unwrap_err().to_string();
        assert!(
            text.contains("qcow2-zlib@tmpfs") && text.contains("sweep-clusters"),
            "{text}"
        );
    }
}
