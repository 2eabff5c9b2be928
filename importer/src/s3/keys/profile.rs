//! Keys in the file of profiles that Amazon's tools write: `~/.aws/credentials`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::{Ambient, Error, Result, S3Keys};

/// A file of profiles is small.
const MOST: u64 = 1 << 20;

/// The keys of the profile that `AWS_PROFILE` names, or of `default`. None if there is no file, or none in it:
/// a profile may have a role or a login instead, which only Amazon's own tools can make keys of.
pub(super) fn read(ambient: &Ambient) -> Result<Option<S3Keys>> {
    let named = ambient
        .get("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from);
    let Some(path) = named.or_else(|| ambient.home(".aws/credentials")) else {
        return Ok(None);
    };
    let mut text = String::new();
    let outcome = File::open(&path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::Credentials {
                why: format!("could not read {}: {e}", path.display()),
            });
        }
        Ok(_) => {}
    }
    let profile = ambient.get("AWS_PROFILE");
    Ok(find(&text, profile.as_deref().unwrap_or("default")))
}

fn find(text: &str, profile: &str) -> Option<S3Keys> {
    let mut section = "";
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| section == profile) else {
            continue;
        };
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    Some(S3Keys {
        access_key_id: id?,
        secret_access_key: secret?,
        session_token: token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=s=/+\n\
        \n[ work ]\naws_access_key_id=B\naws_secret_access_key = t\naws_session_token = u\n[role]\nrole_arn = x\n";

    #[test]
    fn the_profile_that_is_asked_for_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, FILE).unwrap();
        let path = path.to_str().unwrap();
        let of = |profile: &str| {
            let variables = [
                ("AWS_SHARED_CREDENTIALS_FILE", path),
                ("AWS_PROFILE", profile),
            ];
            read(&Ambient::only(variables)).unwrap()
        };
        let plain = of("").unwrap();
        assert_eq!(
            (
                plain.access_key_id.as_str(),
                plain.secret_access_key.as_str()
            ),
            ("A", "s=/+")
        );
        assert_eq!(of("work").unwrap().session_token.as_deref(), Some("u"));
        assert_eq!(of("role"), None);
        assert_eq!(of("nobody"), None);
    }

    #[test]
    fn no_file_is_no_error_and_one_that_cannot_be_read_is() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap();
        assert_eq!(read(&Ambient::only([("HOME", here)])).unwrap(), None);
        assert_eq!(read(&Ambient::only::<&str, &str>([])).unwrap(), None);
        let folder = Ambient::only([("AWS_SHARED_CREDENTIALS_FILE", here)]);
        assert!(matches!(read(&folder), Err(Error::Credentials { .. })));
    }
}
