//! Addresses of disks on the command line: `imageio://[USER@]ENGINE[:PORT]/DISK-ID`, and after a `?`
//! `snapshot=ID`, `previous=ID` (apply what the snapshot has on top of that one) or `backup=ID`.
//! `imageio+http://` is for engines in a laboratory. The password is not part of it: it would show in the
//! list of processes.

use percent_encoding::percent_decode_str;
use url::Url;

use super::{Checkpoint, ImageioDisk, ImageioError};
use crate::{BasicAuth, SourceOptions};

pub(super) fn parse(spec: &str, options: &SourceOptions) -> Result<ImageioDisk, ImageioError> {
    let refuse = |why: &str| ImageioError::Address {
        why: why.to_owned(),
    };
    let url = Url::parse(spec).map_err(|e| refuse(&e.to_string()))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| refuse("it names no engine"))?;
    if url.password().is_some() {
        return Err(refuse(
            "it has a password, which everyone on this machine can see: use LONGSHORE_PASSWORD",
        ));
    }
    let disk = url.path().trim_matches('/');
    if disk.is_empty() || disk.contains('/') {
        return Err(refuse("its path is the id of a disk"));
    }
    let user = percent_decode_str(url.username()).decode_utf8_lossy();
    let password = std::env::var("LONGSHORE_PASSWORD").unwrap_or_default();
    let auth = match (&options.basic_auth, user.is_empty()) {
        (Some(auth), true) => auth.clone(),
        (given, false) => BasicAuth {
            user: user.into_owned(),
            password: given
                .as_ref()
                .map_or(password, |auth| auth.password.clone()),
        },
        (None, true) => return Err(refuse("it names no user: imageio://USER@ENGINE/...")),
    };
    let scheme = match url.scheme() {
        "imageio+http" => "http",
        _ => "https",
    };
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let engine = Url::parse(&format!("{scheme}://{host}{port}/ovirt-engine/api"))
        .map_err(|e| refuse(&e.to_string()))?;
    let mut found = ImageioDisk::new(engine, auth, disk);
    let (mut snapshot, mut previous, mut backup) = (None, None, None);
    for (key, value) in url.query_pairs() {
        let place = match &*key {
            "snapshot" => &mut snapshot,
            "previous" => &mut previous,
            "backup" => &mut backup,
            key => {
                let why = format!("it has {key:?}, which is none of snapshot, previous and backup");
                return Err(refuse(&why));
            }
        };
        *place = Some(value.into_owned());
    }
    found.checkpoint = match (snapshot, previous, backup) {
        (None, None, None) => None,
        (Some(current), previous, None) => Some(Checkpoint::Snapshot { current, previous }),
        (None, None, Some(backup)) => Some(Checkpoint::Backup { backup }),
        _ => {
            return Err(refuse(
                "previous goes with snapshot, and backup with neither",
            ));
        }
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_engine_disk_and_checkpoint() {
        let options = SourceOptions {
            basic_auth: Some(BasicAuth {
                user: "other".into(),
                password: "hush".into(),
            }),
            ..SourceOptions::default()
        };
        let disk = parse(
            "imageio://admin%40internal@e.org:8443/d-1?snapshot=b&previous=a",
            &options,
        );
        let disk = disk.unwrap();
        assert_eq!(disk.engine.as_str(), "https://e.org:8443/ovirt-engine/api");
        assert_eq!(
            (disk.auth.user.as_str(), disk.disk.as_str()),
            ("admin@internal", "d-1")
        );
        assert!(disk.is_layer() && !format!("{disk:?}").contains("hush"));
        let disk = parse("imageio+http://e.org/d-1?backup=b", &options).unwrap();
        assert_eq!(disk.engine.scheme(), "http");
        assert!(disk.is_delta() && !disk.is_layer());
        assert_eq!(disk.auth.user, "other");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let options = SourceOptions::default();
        for spec in [
            "imageio:///d",
            "imageio://e/d",
            "imageio://u:p@e/d",
            "imageio://u@e/",
            "imageio://u@e/a/b",
            "imageio://u@e/d?previous=a",
            "imageio://u@e/d?snapshot=a&backup=b",
            "imageio://u@e/d?token=x",
        ] {
            let refused = parse(spec, &options);
            assert!(
                matches!(refused, Err(ImageioError::Address { .. })),
                "{spec}"
            );
        }
    }
}
