//! Addresses of disks on the command line:
//! `vddk://USER@SERVER[:PORT]/?vm=vm-123&file=[datastore1] web/web.vmdk&thumbprint=AA:BB...`, and further
//! `snapshot`, `transports`, `compression`, `config` and `libdir`, all as nbdkit-vddk-plugin(1) has them.
//! The machine's uuid in place of its reference (`vm=`, or `uuid=`), a snapshot's name in place of its
//! reference, and `previous` (apply what changed since that snapshot or changeId) take asking vSphere.
//! The password is not part of it: it would show in the list of processes.

use percent_encoding::percent_decode_str;
use url::Url;

use super::{VddkDisk, VddkError};
use crate::{BasicAuth, SourceOptions};

pub(super) fn parse(spec: &str, options: &SourceOptions) -> Result<VddkDisk, VddkError> {
    let refuse = |why: &str| VddkError::Address {
        why: why.to_owned(),
    };
    let url = Url::parse(spec).map_err(|e| refuse(&e.to_string()))?;
    let server = url.host_str().filter(|host| !host.is_empty());
    let server = server.ok_or_else(|| refuse("it names no server"))?;
    if url.password().is_some() {
        return Err(refuse(
            "it has a password, which everyone on this machine can see: use LONGSHORE_PASSWORD",
        ));
    }
    let user = percent_decode_str(url.username()).decode_utf8_lossy();
    let auth = match (&options.basic_auth, user.is_empty()) {
        (Some(auth), true) => auth.clone(),
        (Some(auth), false) => BasicAuth {
            user: user.into_owned(),
            password: auth.password.clone(),
        },
        (None, false) => BasicAuth {
            user: user.into_owned(),
            password: std::env::var("LONGSHORE_PASSWORD").unwrap_or_default(),
        },
        (None, true) => return Err(refuse("it names no user: vddk://USER@SERVER/...")),
    };
    let mut disk = VddkDisk::new(server, auth, "", "");
    disk.port = url.port();
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "vm" | "uuid" => value
                .strip_prefix("moref=")
                .unwrap_or(&value)
                .clone_into(&mut disk.vm),
            "file" => disk.file = value,
            "thumbprint" => disk.thumbprint = Some(value),
            "snapshot" => disk.snapshot = Some(value),
            "previous" => disk.previous = Some(value),
            "transports" => disk.transports = Some(value),
            "compression" => disk.compression = Some(value),
            "config" => disk.config = Some(value.into()),
            "libdir" => disk.libdir = value.into(),
            key => {
                return Err(refuse(&format!(
                    "it has {key:?}, which is none of vm, uuid, file, thumbprint, snapshot, previous, transports, compression, config and libdir"
                )));
            }
        }
    }
    for (value, what) in [
        (&disk.vm, "?vm=vm-123"),
        (&disk.file, "file=[datastore] disk.vmdk"),
    ] {
        if value.is_empty() {
            return Err(refuse(&format!("it has no {what}")));
        }
    }
    if disk.previous.is_some() && disk.snapshot.is_none() {
        return Err(refuse(
            "it has previous= and no snapshot=: changes are told between two snapshots",
        ));
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_all_that_the_plugin_takes() {
        let options = SourceOptions {
            basic_auth: Some(BasicAuth {
                user: "other".into(),
                password: "hush".into(),
            }),
            ..SourceOptions::default()
        };
        let spec = "vddk://admin%40vsphere.local@vc.example.org:444/?vm=moref=vm-9\
            &file=[ds 1]%20web/web.vmdk&thumbprint=AA:BB&snapshot=snapshot-3&transports=nbdssl\
            &compression=zlib&libdir=/opt/vddk";
        let disk = parse(spec, &options).unwrap();
        assert_eq!(disk.auth.user, "admin@vsphere.local");
        assert_eq!(disk.auth.password, "hush");
        assert_eq!(
            (disk.server.as_str(), disk.port),
            ("vc.example.org", Some(444))
        );
        assert_eq!(
            (disk.vm.as_str(), disk.file.as_str()),
            ("vm-9", "[ds 1] web/web.vmdk")
        );
        assert_eq!(disk.thumbprint.as_deref(), Some("AA:BB"));
        assert_eq!(disk.snapshot.as_deref(), Some("snapshot-3"));
        assert_eq!(disk.libdir.to_str(), Some("/opt/vddk"));
        assert!(!format!("{disk:?}").contains("hush"));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let options = SourceOptions::default();
        for spec in [
            "vddk:///?vm=a&file=b",
            "vddk://h/?vm=a&file=b",
            "vddk://u:p@h/?vm=a&file=b",
            "vddk://u@h/?vm=a",
            "vddk://u@h/?file=b",
            "vddk://u@h/?vm=a&file=b&previous=c",
            "vddk://u@h/?vm=a&file=b&password=c",
        ] {
            let refused = parse(spec, &options);
            assert!(matches!(refused, Err(VddkError::Address { .. })), "{spec}");
        }
    }
}
