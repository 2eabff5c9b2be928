//! YAML text to plain values, within a budget.

use serde_json::Value;
use serde_saphyr::{Error, Options, options::DuplicateKeyPolicy};

/// Documents in one file. A machine comes with a handful.
const MAX_DOCUMENTS: usize = 64;
/// Nesting of lists and maps. The deepest field of the API is about 15 levels down.
const MAX_DEPTH: usize = 48;
/// Scalars, lists and maps, including each time an alias repeats one.
const MAX_NODES: usize = 100_000;
/// Bytes of text, likewise. A file without aliases has at most `MAX_BYTES` of them.
const MAX_SCALAR_BYTES: usize = 4 * super::MAX_BYTES;
/// Uses of aliases. People write a few.
const MAX_ALIASES: usize = 256;

/// The documents of a stream, empty ones left out.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, Error> {
    serde_saphyr::from_multiple_with_options(text, options())
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_total_scalar_bytes: MAX_SCALAR_BYTES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_SCALAR_BYTES,
            max_merge_keys: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 16,
        },
        // A key given twice is a mistake whichever of the two is taken.
        duplicate_keys: DuplicateKeyPolicy::Error,
        // Snippets would quote secrets into logs.
        with_snippet: false,
    }
}
