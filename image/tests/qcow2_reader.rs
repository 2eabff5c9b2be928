//! The qcow2 reader, both ways: against qemu-img, on hostile images, and with tables out of order.
//! And the writer, against both ways of the reader.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests may fail by panicking, and say what they skip"
)]

#[path = "qcow2/builder.rs"]
mod builder;
#[path = "qcow2/hostile.rs"]
mod hostile;
#[path = "qcow2/oracle.rs"]
mod oracle;
#[path = "qcow2/properties.rs"]
mod properties;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "qcow2/roads.rs"]
mod roads;
#[path = "qcow2/support.rs"]
mod support;
#[path = "qcow2/writer.rs"]
mod writer;
