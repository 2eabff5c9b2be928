//! Who the machine is: name, UUID, serial number, host name, hardware addresses.

use std::fmt::Write as _;

use longshore_crds::{FieldPath, Manifest};
use sha1::{Digest as _, Sha1};

use super::{
    argv::{Argv, escape},
    names,
    problem::ProblemKind,
    report::Report,
};

/// Namespace of the UUIDs that are derived from names, made up for this purpose.
const NAMESPACE: [u8; 16] = *b"longshore-vm-ids";
/// Longest serial number the guest's firmware tables hold comfortably.
const MAX_SERIAL: usize = 256;

#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uuid: String,
    pub(super) hostname: String,
    serial: Option<String>,
}

pub(super) fn identity(manifest: &Manifest, report: &mut Report) -> Identity {
    let vm = &manifest.vm;
    let metadata = FieldPath::root().key("metadata");
    names::check_subdomain(vm.name(), &metadata.key("name"), report);
    if vm.metadata.namespace.is_some() {
        names::check_label(vm.namespace(), &metadata.key("namespace"), report);
    }
    let spec = &vm.spec.template.spec;
    let firmware = spec.domain.firmware.clone().unwrap_or_default();
    let at = manifest.instance_path.key("domain").key("firmware");
    let uuid = match &firmware.uuid {
        Some(text) => parse_uuid(text).unwrap_or_else(|| {
            let value = text.clone();
            report.problem(
                &at.key("uuid"),
                ProblemKind::Invalid {
                    value,
                    expected: "a UUID",
                },
            );
            String::new()
        }),
        None => derived_uuid(&format!("{}/{}", vm.namespace(), vm.name())),
    };
    if let Some(serial) = &firmware.serial {
        let printable = serial.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if serial.is_empty() || serial.len() > MAX_SERIAL || !printable {
            report.problem(
                &at.key("serial"),
                ProblemKind::Invalid {
                    value: serial.clone(),
                    expected: "a serial number of 1 to 256 printable ASCII characters",
                },
            );
        }
    }
    Identity {
        name: vm.name().to_owned(),
        namespace: vm.namespace().to_owned(),
        uuid,
        hostname: hostname(manifest, report),
        serial: firmware.serial,
    }
}

fn hostname(manifest: &Manifest, report: &mut Report) -> String {
    let Some(hostname) = &manifest.vm.spec.template.spec.hostname else {
        // A host name is one label; a machine's name may be several.
        let first = manifest.vm.name().split('.').next().unwrap_or_default();
        let cut: String = first.chars().take(63).collect();
        return cut.trim_end_matches('-').to_owned();
    };
    names::check_label(hostname, &manifest.instance_path.key("hostname"), report);
    hostname.clone()
}

impl Identity {
    pub(super) fn arguments(&self, argv: &mut Argv) {
        let Self {
            name,
            namespace,
            uuid,
            hostname: _,
            serial,
        } = self;
        argv.option(
            "-name",
            format!("guest={}_{}", escape(namespace), escape(name)),
        );
        argv.flag("-nodefaults");
        argv.flag("-no-user-config");
        argv.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        argv.flag("-S");
        argv.option("-uuid", uuid);
        let serial = serial
            .as_ref()
            .map(|serial| format!(",serial={}", escape(serial)));
        let product = "type=1,manufacturer=Longshore,product=Virtual Machine";
        argv.option(
            "-smbios",
            format!("{product}{}", serial.unwrap_or_default()),
        );
    }

    /// The hardware address of an interface: locally administered, the same at every start.
    pub(super) fn mac_address(&self, index: usize) -> String {
        let digest = Sha1::digest(format!("{}/{index}", self.uuid));
        let mut mac = "02".to_owned();
        for byte in digest.iter().take(5) {
            // Writing to a string does not fail.
            let _ = write!(mac, ":{byte:02x}");
        }
        mac
    }
}

/// A UUID in its usual form, from that or from 32 digits.
fn parse_uuid(text: &str) -> Option<String> {
    let digits: String = match text.len() {
        32 => text.to_owned(),
        36 => {
            let dashes = text
                .bytes()
                .enumerate()
                .all(|(at, b)| (b == b'-') == [8, 13, 18, 23].contains(&at));
            dashes.then(|| text.replace('-', ""))?
        }
        _ => return None,
    };
    let valid = digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| dashed(&digits.to_ascii_lowercase()))
}

/// A version 5 UUID: the same name gives the same identity everywhere.
fn derived_uuid(name: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(NAMESPACE);
    hash.update(name);
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    dashed(&format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Puts dashes into 32 ASCII digits.
fn dashed(digits: &str) -> String {
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&at) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_taken_in_both_spellings() {
        let usual = "5d307ca9-b3ef-428c-8861-06e72d69f223";
        assert_eq!(parse_uuid(usual).as_deref(), Some(usual));
        assert_eq!(parse_uuid(&usual.to_uppercase()).as_deref(), Some(usual));
        assert_eq!(parse_uuid(&usual.replace('-', "")).as_deref(), Some(usual));
        for wrong in [
            "",
            "5d307ca9",
            "5d307ca9-b3ef-428c-8861-06e72d69f22g",
            "5d307ca9b-3ef-428c-8861-06e72d69f223",
            "é307ca9-b3ef-428c-8861-06e72d69f223",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn derived_uuids_are_of_version_5_and_differ_by_name() {
        let one = derived_uuid("default/a");
        assert_eq!(parse_uuid(&one).as_deref(), Some(one.as_str()));
        assert_eq!(one.as_bytes()[14], b'5');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
        assert_ne!(one, derived_uuid("default/b"));
    }
}
