//! The launcher against the real QEMU: boot-sector guests, written here, under the real supervisor.
//!
//! Without QEMU these tests skip and say so, except under CI, where a missing tool is a failure.

#[cfg(test)]
mod asm;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod helper;
#[cfg(test)]
mod host;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod monitor;
#[cfg(test)]
mod orphans;
#[cfg(test)]
mod planned;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod terminal;
