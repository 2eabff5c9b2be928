//! One memory budget for everything a worker does, shared out before anything is allocated.

use longshore_image::Wrapper;
use longshore_image::cluster::ClusterCodec;

use crate::{Error, Result};

/// Memory a worker may use unless told otherwise, in bytes. With the program's own pages its peak then
/// stays under 128 MiB.
pub const DEFAULT_MEMORY: u64 = 112 << 20;

/// What the program itself takes: code, stacks, runtime, TLS, directory of extents in flight.
const BASE: u64 = 20 << 20;
/// Tables and held bytes at the least.
const TABLES_LEAST: u64 = 6 << 20;
/// Tables and held bytes at the most, by default budget; more budget gives more.
const TABLES_SHARE: u64 = 3;
/// Size of a task's output: one write. Small enough that what a core has decoded is still in its cache
/// when it is written.
pub(crate) const UNIT: u64 = 512 << 10;
/// Buffers that may wait between the stages beyond one for each, if memory allows: some milliseconds of
/// decoding. A reader that waits for a core all decoders are busy on must not leave them without work
/// (measured: 5 % of the time of a streamOptimized VMDK on two cores).
const WAITING: u64 = 10;
/// Pieces of a stream as they pass between stages.
pub const CHUNK: usize = 256 << 10;
/// Chunks in flight per stage of a stream.
pub(crate) const CHUNKS: usize = 4;
/// As many more may be with the decoding threads, if memory allows: about what these have of their own
/// buffers, which then are not needed.
const LENT: u64 = 16;
/// What gzip and bzip2 keep, generously.
const SMALL_WINDOW: u64 = 8 << 20;
/// What a raw disk in a stream needs beside buffers: the last sectors wait, and may be a VHD's footer.
const RAW_TABLES: u64 = 1 << 20;
/// For chunks that the writing threads have, and requests that fetch a raw disk's stream ahead.
const RAW_AHEAD: u64 = 6 << 20;
/// Threads that look for zeros and write while a raw disk is decompressed.
const RAW_THREADS: u64 = 2;
/// Largest compressed clusters there are.
const MOST_CLUSTER: u64 = 2 << 20;
/// Tables of the image being written, at the least: refcount blocks, slices of L2, and an L1.
const WRITTEN_TABLES: u64 = 2 << 20;
/// Tables of the image being written, at the most.
const WRITTEN_TABLES_MOST: u64 = 48 << 20;
/// Clusters of the image being written that wait for their other parts, at the least.
const PARTS_LEAST: u64 = 2;
/// Such clusters at the most, in bytes and in number.
const PARTS_MOST_BYTES: u64 = 16 << 20;
const PARTS_MOST: u64 = 4096;
/// Such clusters that are on their way to the target.
pub(crate) const PARTS_IN_FLIGHT: u64 = 2;
/// How far a compressed cluster may be larger than the cluster itself.
const COMPRESSED_SLACK: u64 = 64 << 10;

/// The memory a transfer may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory(u64);

impl Default for Memory {
    fn default() -> Self {
        Self(DEFAULT_MEMORY)
    }
}

impl Memory {
    /// Exactly `bytes`.
    pub fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The default, or nine tenths of what the cgroup allows if that is less.
    pub fn from_cgroup() -> Self {
        match cgroup_limit() {
            Some(limit) => Self((limit / 10 * 9).min(DEFAULT_MEMORY)),
            None => Self::default(),
        }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// The smallest memory limit of this process's cgroup (v2 or v1) and its parents.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least: Option<u64> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        // In a container the path of the host may not exist: its own root is the limit then.
        let mut path = path;
        loop {
            let text = std::fs::read_to_string(format!("{root}{path}/{file}"));
            if let Some(limit) = text.ok().and_then(|t| t.trim().parse::<u64>().ok()) {
                least = Some(least.map_or(limit, |l| l.min(limit)));
            }
            match path.rsplit_once('/') {
                Some((up, _)) if !path.is_empty() => path = up,
                _ => break,
            }
        }
    }
    least
}

/// How the engine's part of the budget is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Decoding threads.
    pub(crate) threads: usize,
    /// Bytes of decoded output per task.
    pub(crate) unit_out: usize,
    /// Bytes of input per task.
    pub(crate) unit_in: usize,
    /// How many buffers of each kind go round.
    pub(crate) buffers: usize,
    /// Clusters of the image being written that may wait for their other parts.
    pub(crate) parts: usize,
    /// Bytes for the tables of the image being written.
    pub(crate) tables: u64,
}

/// What is written, as far as it takes memory. The default is a raw disk, which takes none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writing {
    /// Bytes per cluster; 0 for a raw disk.
    pub(crate) cluster: u64,
    /// Memory of one encoder.
    pub(crate) encoder: u64,
}

impl Writing {
    /// What the writer itself takes at the least: tables; two refcount blocks; three clusters where
    /// one is taken apart; and the fewest clusters in parts.
    fn least(self) -> u64 {
        match self.cluster {
            0 => 0,
            cluster => WRITTEN_TABLES + 5 * cluster + (PARTS_LEAST + PARTS_IN_FLIGHT) * cluster,
        }
    }

    /// What each thread takes: an encoder and where it puts its output, and a place for a cluster of
    /// the source of which only a part is wanted.
    fn per_thread(self, source_cluster: u64) -> u64 {
        match self.cluster {
            0 => 0,
            cluster => self.encoder + cluster + source_cluster,
        }
    }
}

/// What is in a compressed stream, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    /// A raw disk, to be written as one.
    Raw,
    /// Anything: tables, clusters, another wrapper, or it is not known.
    Any,
}

/// Shares the budget out, first come first served: what is taken is gone.
#[derive(Debug)]
pub(crate) struct Budget {
    total: u64,
    left: u64,
}

impl Budget {
    pub(crate) fn new(memory: Memory) -> Result<Self> {
        let total = memory.bytes();
        let mut this = Self { total, left: total };
        let least = Self::engine_least() + (CHUNK * CHUNKS) as u64;
        this.take(BASE, least, "the program itself")?;
        Ok(this)
    }

    /// What nobody has taken.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Takes `bytes`, of which `later` more must stay for what comes after.
    fn take(&mut self, bytes: u64, later: u64, what: &str) -> Result<()> {
        if self.left < bytes + later {
            return Err(Error::Memory {
                what: what.to_owned(),
                needed: self.total - self.left + bytes + later,
                allowed: self.total,
            });
        }
        self.left -= bytes;
        Ok(())
    }

    /// One thread and the smallest units: what must be left for the engine whatever comes before it.
    fn engine_least() -> u64 {
        Self::engine(1, UNIT, UNIT) + TABLES_LEAST
    }

    /// The same for the largest clusters: what a decompressor in front of an unknown image leaves.
    fn engine_for_any_image() -> u64 {
        let codec = ClusterCodec::Zstd.decoder_bytes(MOST_CLUSTER);
        Self::engine(1, MOST_CLUSTER, MOST_CLUSTER + COMPRESSED_SLACK) + codec + TABLES_LEAST
    }

    /// What a decompressor leaves for `inner`.
    fn engine_for(inner: Inner) -> u64 {
        match inner {
            Inner::Any => Self::engine_for_any_image(),
            Inner::Raw => Self::engine(RAW_THREADS, UNIT, UNIT) + RAW_TABLES + RAW_AHEAD,
        }
    }

    fn engine(threads: u64, unit_out: u64, unit_in: u64) -> u64 {
        (threads + 2) * (unit_out + unit_in)
    }

    /// Takes chunks for one stage of a stream.
    pub(crate) fn chunks(&mut self) -> Result<usize> {
        self.take(
            (CHUNK * CHUNKS) as u64,
            Self::engine_least(),
            "reading a stream",
        )?;
        Ok(CHUNKS)
    }

    /// Takes chunks that the decoding threads may have: how many more than the stage has itself. Only
    /// what is left when everything else has its share.
    pub(crate) fn lent(&mut self) -> usize {
        let chunks = (self.left / 2 / CHUNK as u64).min(LENT);
        self.left -= chunks * CHUNK as u64;
        chunks as usize
    }

    /// Takes memory for a decompressor, and returns how much it may use. `needed` is what its stream
    /// is known to take; half of what is spare (two thirds for bzip2, whose threads take much each) is for
    /// more threads, as far as they have use for it (`most`), and for windows that grow later on. In front
    /// of a raw disk it may have all that is spare.
    pub(crate) fn wrapper(
        &mut self,
        wrapper: Wrapper,
        inner: Inner,
        needed: Option<u64>,
        most: Option<u64>,
    ) -> Result<u64> {
        let later = Self::engine_for(inner);
        let spare = self.left.saturating_sub(later);
        let allotted = match inner {
            Inner::Raw => spare,
            Inner::Any => spare / 2,
        };
        let allowed = match wrapper {
            Wrapper::Gzip => spare.min(SMALL_WINDOW),
            Wrapper::Bzip2 => {
                let most = most.unwrap_or(u64::MAX);
                (spare / 3 * 2).min(most).max(spare.min(SMALL_WINDOW))
            }
            _ => allotted.max(needed.unwrap_or(0).min(spare)),
        };
        self.take(allowed, later, "decompressing")?;
        Ok(allowed)
    }

    /// What a decompressor's refusal means for the whole budget. Its own need is not known before it
    /// has refused, and is added then.
    pub(crate) fn wrapper_refused(&self, name: &str, inner: Inner) -> Error {
        Error::Memory {
            what: format!("decompressing this {name} stream"),
            needed: BASE + Self::engine_for(inner) + (CHUNK * CHUNKS * 2) as u64,
            allowed: self.total,
        }
    }

    /// Memory that [`Budget::tables`] would take now.
    pub(crate) fn table_share(&self) -> u64 {
        let engine = Self::engine_for_any_image() - TABLES_LEAST;
        let spare = self.left.saturating_sub(engine);
        (spare / TABLES_SHARE).max(TABLES_LEAST)
    }

    /// Takes what [`Budget::tables`] would for a raw disk in a stream, which needs little of it.
    pub(crate) fn raw_tables(&mut self) -> Result<(u64, u64)> {
        self.take(RAW_TABLES, Self::engine(1, UNIT, UNIT), "tables")?;
        Ok((RAW_TABLES / 2, RAW_TABLES / 2))
    }

    /// Keeps from the buffers of a raw disk, which are of little use to it, what chunks and fetching ahead
    /// need.
    pub(crate) fn keep_ahead(&mut self) -> u64 {
        let spare = self.left.saturating_sub(Self::engine(1, UNIT, UNIT));
        let kept = spare.min(RAW_AHEAD);
        self.left -= kept;
        kept
    }

    /// What was kept is there again.
    pub(crate) fn give_back(&mut self, kept: u64) {
        self.left += kept;
    }

    /// Takes memory for tables, and for bytes that wait for their table.
    pub(crate) fn tables(&mut self) -> Result<(u64, u64)> {
        let tables = self.table_share();
        self.take(tables, Self::engine(1, UNIT, UNIT), "tables")?;
        Ok((tables / 3 * 2, tables / 3))
    }

    /// Lays out the decoding stages for clusters of `cluster` bytes on up to `threads` threads, and
    /// what `writing` takes.
    pub(crate) fn layout(
        &mut self,
        threads: usize,
        cluster: u64,
        codec: ClusterCodec,
        writing: Writing,
    ) -> Result<Layout> {
        let mut unit_out = UNIT.max(cluster);
        if writing.cluster > 0 {
            // Units are cut where clusters are.
            unit_out = unit_out.max(writing.cluster).next_power_of_two();
        }
        let unit_in = if cluster > 0 {
            UNIT.max(cluster + COMPRESSED_SLACK)
        } else {
            UNIT
        };
        let mut threads = threads.clamp(1, 256) as u64;
        let cost = |threads: u64| {
            let each = codec.decoder_bytes(cluster) + writing.per_thread(cluster);
            Self::engine(threads, unit_out, unit_in) + threads * each + writing.least()
        };
        while threads > 1 && cost(threads) > self.left {
            threads -= 1;
        }
        if cost(threads) > self.left {
            // Tables take a share of any memory that is added.
            let missing = (cost(threads) - self.left) * TABLES_SHARE / (TABLES_SHARE - 1);
            let largest = cluster.max(writing.cluster);
            return Err(Error::Memory {
                what: format!("work on clusters of {} KiB", largest >> 10),
                needed: self.total + missing + 1,
                allowed: self.total,
            });
        }
        self.left -= cost(threads);
        let (mut parts, mut tables) = (0, 0);
        if writing.cluster > 0 {
            let extra = (self.left / 2).min(WRITTEN_TABLES_MOST - WRITTEN_TABLES);
            self.left -= extra;
            tables = WRITTEN_TABLES + extra;
            let extra = (self.left / 2).min(PARTS_MOST_BYTES);
            let extra = extra.div_euclid(writing.cluster).min(PARTS_MOST);
            self.left -= extra * writing.cluster;
            parts = PARTS_LEAST + extra;
        }
        let spare = (self.left / (unit_out + unit_in)).min(threads + WAITING);
        self.left -= spare * (unit_out + unit_in);
        Ok(Layout {
            threads: threads as usize,
            unit_out: unit_out as usize,
            unit_in: unit_in as usize,
            buffers: (threads + 2 + spare) as usize,
            parts: parts as usize,
            tables,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_budget_fits_every_cluster_size_and_leaves_threads() {
        for cluster in [512, 64 << 10, 2 << 20] {
            for codec in [ClusterCodec::Deflate, ClusterCodec::Zstd] {
                let mut budget = Budget::new(Memory::default()).unwrap();
                let tables = budget.tables().unwrap();
                assert!(tables.0 >= 8 << 20, "{tables:?}");
                let layout = budget
                    .layout(16, cluster, codec, Writing::default())
                    .unwrap();
                assert!(layout.threads >= 4, "{cluster}: {layout:?}");
                let used = layout.buffers as u64 * (layout.unit_in + layout.unit_out) as u64;
                assert!(used < DEFAULT_MEMORY - BASE, "{layout:?}");
            }
        }
    }

    #[test]
    fn an_xz_dictionary_of_64_mib_fits_into_the_default_and_the_engine_still_runs() {
        let mut budget = Budget::new(Memory::default()).unwrap();
        budget.chunks().unwrap();
        let allowed = budget
            .wrapper(Wrapper::Xz, Inner::Any, Some(65 << 20), None)
            .unwrap();
        assert!(allowed >= 65 << 20, "{allowed}");
        budget.tables().unwrap();
        assert!(
            budget
                .layout(2, 64 << 10, ClusterCodec::Deflate, Writing::default())
                .unwrap()
                .threads
                >= 1
        );
    }

    #[test]
    fn an_xz_stream_of_a_raw_disk_has_two_blocks_of_preset_6_at_once_and_some_is_kept_to_fetch_ahead()
     {
        let mut budget = Budget::new(Memory::default()).unwrap();
        budget.chunks().unwrap();
        budget.chunks().unwrap();
        let allowed = budget
            .wrapper(Wrapper::Xz, Inner::Raw, Some(9 << 20), None)
            .unwrap();
        // 24 MiB out, a dictionary of 8, and 6 in: what most blocks have at the most.
        assert!(allowed >= (2 * (24 + 9 + 6)) << 20, "{allowed}");
        budget.raw_tables().unwrap();
        let ahead = budget.keep_ahead();
        assert_eq!(ahead, RAW_AHEAD);
        let layout = budget
            .layout(2, 0, ClusterCodec::None, Writing::default())
            .unwrap();
        assert_eq!(layout.threads, 2);
        budget.give_back(ahead);
        assert_eq!(budget.lent() as u64 * CHUNK as u64, RAW_AHEAD / 2);
    }

    #[test]
    fn too_little_memory_is_refused_with_the_amount_that_would_do() {
        let mut budget = Budget::new(Memory::of(40 << 20)).unwrap();
        budget.tables().unwrap();
        let Err(Error::Memory {
            needed, allowed, ..
        }) = budget.layout(2, 2 << 20, ClusterCodec::Zstd, Writing::default())
        else {
            unreachable!("clusters of 2 MiB do not fit")
        };
        assert_eq!(allowed, 40 << 20);
        let mut budget = Budget::new(Memory::of(needed)).unwrap();
        budget.tables().unwrap();
        budget
            .layout(2, 2 << 20, ClusterCodec::Zstd, Writing::default())
            .unwrap();
    }

    #[test]
    fn the_default_budget_writes_clusters_of_every_size_from_clusters_of_every_size() {
        for (cluster, written) in [
            (512, 2 << 20),
            (2 << 20, 512),
            (64 << 10, 64 << 10),
            (2 << 20, 2 << 20),
        ] {
            for codec in [ClusterCodec::Deflate, ClusterCodec::Zstd] {
                let encoding = longshore_image::cluster::Encoding::new(codec, Some(9)).unwrap();
                let writing = Writing {
                    cluster: written,
                    encoder: encoding.encoder_bytes(written),
                };
                let mut budget = Budget::new(Memory::default()).unwrap();
                budget.tables().unwrap();
                let layout = budget.layout(2, cluster, codec, writing).unwrap();
                assert_eq!(layout.unit_out as u64 % written, 0, "{layout:?}");
                let used = layout.buffers as u64 * (layout.unit_in + layout.unit_out) as u64
                    + layout.threads as u64 * writing.per_thread(cluster)
                    + (layout.parts as u64 + 5) * written
                    + layout.tables;
                assert!(used < DEFAULT_MEMORY - BASE, "{layout:?} {used}");
            }
        }
    }
}
