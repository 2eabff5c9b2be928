//! Whether a spec makes sense, in the words that upstream's webhook uses: its tests and its users know
//! them.

use longshore_crds::DataVolumeSpec;
use longshore_crds::data_volume::{ClaimSpec, ContentType, DataVolumeSource};

const MIB: u64 = 1 << 20;
const LONGEST_NAME: usize = 253;

/// What is wrong, if anything.
pub(super) fn validate(name: &str, spec: &DataVolumeSpec) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        return Err(format!(
            "Name cannot be longer than {LONGEST_NAME} characters"
        ));
    }
    let claim = match (&spec.pvc, &spec.storage) {
        (None, None) => return Err("Missing Data volume PVC".to_owned()),
        (Some(_), Some(_)) => {
            return Err(
                "Duplicate storage definition, both target storage and target pvc defined"
                    .to_owned(),
            );
        }
        (Some(claim), None) => {
            access_modes(claim)?;
            claim
        }
        (None, Some(claim)) => claim,
    };
    size(claim, spec)?;
    let external = claim.data_source.is_some() || claim.data_source_ref.is_some();
    match (&spec.source, &spec.source_ref) {
        (None, None) if external => Ok(()),
        (None, None) => Err(
            "Data volume should have either Source or SourceRef, or be externally populated"
                .to_owned(),
        ),
        (Some(_), Some(_)) => Err("Multiple Data volume sources".to_owned()),
        (_, _) if external => {
            Err("External population is incompatible with Source and SourceRef".to_owned())
        }
        (None, Some(reference)) => {
            if reference.kind != "DataSource" {
                return Err(format!(
                    "Source ref kind \"{}\" is not supported",
                    reference.kind
                ));
            }
            if reference.name.is_empty() {
                Err("Source ref name is empty".to_owned())
            } else {
                Ok(())
            }
        }
        (Some(source), None) => {
            match source.kinds().len() {
                0 => return Err("Missing Data volume source".to_owned()),
                1 => {}
                _ => return Err("Multiple Data volume sources".to_owned()),
            }
            one_source(source, spec.content_type)
        }
    }
}

fn access_modes(claim: &ClaimSpec) -> Result<(), String> {
    match claim.access_modes.as_slice() {
        [] => Err("Required value: at least 1 access mode is required".to_owned()),
        [mode] => {
            let known = [
                "ReadWriteOnce",
                "ReadOnlyMany",
                "ReadWriteMany",
                "ReadWriteOncePod",
            ];
            if known.contains(&mode.as_str()) {
                Ok(())
            } else {
                Err(format!(
                    "Unsupported value: \"{mode}\": supported values: {}",
                    known.join(", ")
                ))
            }
        }
        _ => Err("PVC multiple accessModes".to_owned()),
    }
}

fn size(claim: &ClaimSpec, spec: &DataVolumeSpec) -> Result<(), String> {
    let requests = claim
        .resources
        .as_ref()
        .map(|resources| &resources.requests);
    let Some(size) = requests.and_then(|requests| requests.get("storage")) else {
        let clones = spec
            .source
            .as_ref()
            .is_some_and(|source| source.pvc.is_some() || source.snapshot.is_some());
        if spec.storage.is_some() && (clones || spec.source_ref.is_some()) {
            return Ok(());
        }
        return Err("PVC size is missing".to_owned());
    };
    if size.nanos() <= 0 {
        return Err("PVC size can't be equal or less than zero".to_owned());
    }
    if size.to_u64().is_some_and(|bytes| bytes < MIB) {
        return Err("PVC size should be at least 1MiB".to_owned());
    }
    Ok(())
}

fn one_source(source: &DataVolumeSource, content: Option<ContentType>) -> Result<(), String> {
    let archive = content == Some(ContentType::Archive);
    if source.blank.is_some() && archive {
        return Err("SourceType cannot be blank and the contentType be archive".to_owned());
    }
    if source.registry.is_some() && archive {
        return Err("ContentType must be kubevirt when Source is Registry".to_owned());
    }
    if let Some(http) = &source.http {
        scheme("http", &http.url, &["http", "https"])?;
        if let Some(checksum) = &http.checksum {
            self::checksum(checksum)?;
        }
    }
    if let Some(s3) = &source.s3 {
        scheme("s3", &s3.url, &["http", "https", "s3"])?;
    }
    if let Some(gcs) = &source.gcs {
        scheme("gcs", &gcs.url, &["http", "https", "gs"])?;
    }
    if let Some(registry) = &source.registry {
        match (&registry.url, &registry.image_stream) {
            (Some(url), None) => scheme("registry", url, &["docker", "oci-archive"])?,
            (None, Some(_)) if registry.pull_method.as_deref() == Some("node") => {}
            (None, Some(_)) => {
                return Err(
                    "Source registry imageStream is supported only with node pull".to_owned(),
                );
            }
            _ => return Err("Source registry should have either URL or ImageStream".to_owned()),
        }
        if let Some(method) = &registry.pull_method
            && !["pod", "node"].contains(&method.as_str())
        {
            return Err(format!(
                "ImportMethod {method} is neither pod, node nor \"\""
            ));
        }
    }
    Ok(())
}

fn scheme(source: &str, url: &str, allowed: &[&str]) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(format!("Invalid {source} source URL: it has no scheme"));
    };
    if rest.trim_start_matches('/').is_empty() {
        return Err(format!(
            "Invalid {source} source URL: there is nothing behind its scheme"
        ));
    }
    if allowed.iter().any(|one| scheme.eq_ignore_ascii_case(one)) {
        return Ok(());
    }
    Err(format!(
        "Invalid {source} source URL scheme: {scheme} is none of {}",
        allowed.join(", ")
    ))
}

fn checksum(text: &str) -> Result<(), String> {
    let (algorithm, digest) = text
        .split_once(':')
        .ok_or_else(|| "Invalid checksum: it has the form algorithm:hexadecimal".to_owned())?;
    let length = match algorithm.to_ascii_lowercase().as_str() {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha512" => 128,
        other => {
            return Err(format!(
                "Invalid checksum: {other} is none of md5, sha1, sha256, sha512"
            ));
        }
    };
    if digest.len() != length || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!(
            "Invalid checksum: {algorithm} takes {length} hexadecimal digits"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is wrong, or nothing.
    fn verdict(spec: Value) -> Option<String> {
        validate("disk", &serde_json::from_value(spec).unwrap()).err()
    }

    fn http() -> Value {
        json!({"http": {"url": "https://h/disk.qcow2"}})
    }

    fn claim() -> Value {
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
    }

    #[test]
    fn specs_that_make_sense_are_taken() {
        for spec in [
            json!({"source": http(), "pvc": claim()}),
            json!({"source": http(), "storage": {"resources": {"requests": {"storage": "1Mi"}}}}),
            json!({"source": {"blank": {}}, "pvc": claim()}),
            json!({"source": {"pvc": {"namespace": "a", "name": "b"}}, "storage": {}}),
            json!({"sourceRef": {"kind": "DataSource", "name": "x"}, "storage": {}}),
            json!({"source": {"registry": {"url": "docker://h/x"}}, "pvc": claim()}),
            json!({"source": {"gcs": {"url": "gs://b/o"}}, "pvc": claim()}),
        ] {
            assert_eq!(verdict(spec.clone()), None, "{spec}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_upstreams_words() {
        for (spec, words) in [
            (json!({"source": http()}), "Missing Data volume PVC"),
            (
                json!({"source": http(), "pvc": claim(), "storage": claim()}),
                "Duplicate storage definition",
            ),
            (json!({"pvc": claim()}), "either Source or SourceRef"),
            (
                json!({"source": {}, "pvc": claim()}),
                "Missing Data volume source",
            ),
            (
                json!({"source": {"blank": {}, "http": {"url": "http://h/x"}}, "pvc": claim()}),
                "Multiple Data volume sources",
            ),
            (
                json!({"source": {"http": {"url": "ftp://h/x"}}, "pvc": claim()}),
                "Invalid http source URL scheme",
            ),
            (
                json!({"source": {"http": {"url": "http://"}}, "pvc": claim()}),
                "Invalid http source URL",
            ),
            (
                json!({"source": http(), "pvc": {"resources": {"requests": {"storage": "1Gi"}}}}),
                "at least 1 access mode",
            ),
            (
                json!({"source": http(), "storage": {"resources": {"requests": {"storage": "0"}}}}),
                "equal or less than zero",
            ),
            (
                json!({"source": http(), "storage": {"resources": {"requests": {"storage": "1023Ki"}}}}),
                "at least 1MiB",
            ),
            (json!({"source": http(), "storage": {}}), "size is missing"),
            (
                json!({"source": {"blank": {}}, "contentType": "archive", "pvc": claim()}),
                "cannot be blank",
            ),
            (
                json!({"source": {"http": {"url": "http://h/x", "checksum": "sha256:ab"}}, "pvc": claim()}),
                "takes 64 hexadecimal digits",
            ),
            (
                json!({"source": {"registry": {"imageStream": "x"}}, "pvc": claim()}),
                "only with node pull",
            ),
            (
                json!({"sourceRef": {"kind": "Other", "name": "x"}, "storage": {}}),
                "is not supported",
            ),
        ] {
            let refused = verdict(spec.clone()).unwrap();
            assert!(refused.contains(words), "{spec}: {refused}");
        }
        let spec = json!({"source": http(), "pvc": claim()});
        let spec = serde_json::from_value(spec).unwrap();
        assert!(validate(&"x".repeat(254), &spec).is_err());
    }
}
