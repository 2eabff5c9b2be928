//! VMDK: what other tools write, what nobody should, and what always holds.
#![expect(
    clippy::cast_possible_truncation,
    reason = "tests build small images by hand"
)]

mod builder;
mod forward;
mod oracle;
mod parents;
mod properties;
mod rules_sparse;
mod rules_stream;
mod support;
