//! Whether a spec makes sense, in the words that upstream's webhook uses: its tests and its users know
//! them.

use longshore_crds::DataVolumeSpec;
use longshore_crds::data_volume::{
    Checkpoint, ClaimSpec, ContentType, DataVolumeSource, RegistrySource,
};

const MIB: u64 = 1 << 20;
const LONGEST_NAME: usize = 253;

/// What is wrong, if anything.
pub(super) fn validate(name: &str, spec: &DataVolumeSpec) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        return Err(format!(
            "Name cannot be longer than {LONGEST_NAME} characters"
        ));
    }
    let (claim, section) = match (&spec.pvc, &spec.storage) {
        (None, None) => return Err("Missing Data volume PVC".to_owned()),
        (Some(_), Some(_)) => {
            return Err(
                "Duplicate storage definition, both target storage and target pvc defined"
                    .to_owned(),
            );
        }
        (Some(claim), None) => (claim, "PVC"),
        (None, Some(claim)) => (claim, "Storage"),
    };
    size(claim, spec, section)?;
    access_modes(claim, spec.pvc.is_some())?;
    if let Some(class) = &claim.storage_class_name
        && class.len() > LONGEST_NAME
    {
        return Err(format!(
            "Storage class name cannot be longer than {LONGEST_NAME} characters"
        ));
    }
    if spec.content_type == Some(ContentType::Archive)
        && claim.volume_mode.as_deref() == Some("Block")
    {
        return Err("ContentType Archive cannot have block volumeMode".to_owned());
    }
    if claim.data_source.is_some() || claim.data_source_ref.is_some() {
        return external(claim, spec);
    }
    match (&spec.source, &spec.source_ref) {
        (Some(_), Some(_)) | (None, None) => Err(
            "Data volume should have either Source or SourceRef, or be externally populated"
                .to_owned(),
        ),
        (None, Some(reference)) => match (reference.kind.as_str(), reference.name.as_str()) {
            ("", _) => Err("Missing sourceRef kind".to_owned()),
            ("DataSource", "") => Err("Missing sourceRef name".to_owned()),
            ("DataSource", _) => Ok(()),
            (kind, _) => Err(format!(
                "Unsupported sourceRef kind {kind}, currently only DataSource is supported"
            )),
        },
        (Some(source), None) => {
            self::source(source, spec.content_type)?;
            checkpoints(source, &spec.checkpoints)
        }
    }
}

/// The same of a source by itself.
pub(crate) fn source(
    source: &DataVolumeSource,
    content: Option<ContentType>,
) -> Result<(), String> {
    match source.kinds().len() {
        0 => Err("Missing Data volume source".to_owned()),
        1 => one_source(source, content),
        _ => Err("Multiple Data volume sources".to_owned()),
    }
}

/// Stages are of sources that know what changed between two.
pub(crate) fn checkpoints(source: &DataVolumeSource, listed: &[Checkpoint]) -> Result<(), String> {
    if listed.is_empty() {
        return Ok(());
    }
    if source.imageio.is_none() && source.vddk.is_none() {
        return Err("spec.checkpoints are for the sources imageio and vddk only".to_owned());
    }
    if listed.iter().any(|one| one.current.is_empty()) {
        return Err("each of spec.checkpoints takes a name in current".to_owned());
    }
    Ok(())
}

/// `pvc` takes exactly one; `storage` may leave it to the profile, or name several.
fn access_modes(claim: &ClaimSpec, exactly_one: bool) -> Result<(), String> {
    let known = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    match claim.access_modes.as_slice() {
        [] if exactly_one => {
            return Err("Required value: at least 1 access mode is required".to_owned());
        }
        [_, _, ..] if exactly_one => return Err("PVC multiple accessModes".to_owned()),
        _ => {}
    }
    let mut modes = claim.access_modes.iter();
    match modes.find(|mode| !known.contains(&mode.as_str())) {
        Some(mode) => Err(format!(
            "Unsupported value: \"{mode}\": supported values: {}",
            known.map(|mode| format!("\"{mode}\"")).join(", ")
        )),
        None => Ok(()),
    }
}

fn size(claim: &ClaimSpec, spec: &DataVolumeSpec, section: &str) -> Result<(), String> {
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
        return Err(format!("{section} size is missing"));
    };
    if size.nanos() <= 0 {
        return Err(format!("{section} size can't be equal or less than zero"));
    }
    if size.to_u64().is_some_and(|bytes| bytes < MIB) {
        return Err(format!("{section} size should be at least 1MiB"));
    }
    Ok(())
}

/// Somebody else fills the claim, from an object that its spec names.
fn external(claim: &ClaimSpec, spec: &DataVolumeSpec) -> Result<(), String> {
    if spec.source.is_some() || spec.source_ref.is_some() {
        return Err("External population is incompatible with Source and SourceRef".to_owned());
    }
    if let (Some(one), Some(other)) = (&claim.data_source, &claim.data_source_ref)
        && one != other
    {
        return Err("DataSourceRef and DataSource must match".to_owned());
    }
    for (field, reference) in [
        ("dataSource", &claim.data_source),
        ("dataSourceRef", &claim.data_source_ref),
    ] {
        let Some(reference) = reference else { continue };
        let part = |name: &str| reference.get(name).and_then(serde_json::Value::as_str);
        for name in ["name", "kind", "apiGroup"] {
            // Claims are of no group.
            let may_lack = name == "apiGroup" && part("kind") == Some("PersistentVolumeClaim");
            if part(name).unwrap_or_default().is_empty() && !may_lack {
                return Err(format!("Required value: {field}.{name}"));
            }
        }
        if part("namespace").is_some_and(|namespace| !namespace.is_empty()) {
            return Err(format!(
                "Forbidden: {field}.namespace: cross-namespace population is not supported"
            ));
        }
    }
    Ok(())
}

fn one_source(source: &DataVolumeSource, content: Option<ContentType>) -> Result<(), String> {
    let archive = content == Some(ContentType::Archive);
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if source.blank.is_some() && archive {
        return Err("SourceType cannot be blank and the contentType be archive".to_owned());
    }
    for (name, is) in [
        ("Registry", source.registry.is_some()),
        ("Imageio", source.imageio.is_some()),
        ("VDDK", source.vddk.is_some()),
    ] {
        if is && archive {
            return Err(format!(
                "ContentType must be kubevirt when Source is {name}"
            ));
        }
    }
    if let Some(http) = &source.http {
        scheme(&http.url, &["http", "https"])?;
        if let Some(checksum) = &http.checksum {
            self::checksum(checksum)?;
        }
    }
    if let Some(s3) = &source.s3 {
        scheme(&s3.url, &["http", "https", "s3"])?;
    }
    if let Some(gcs) = &source.gcs {
        scheme(&gcs.url, &["http", "https", "gs"])?;
    }
    if let Some(registry) = &source.registry {
        self::registry(registry)?;
    }
    if let Some(imageio) = &source.imageio {
        let trusts = given(&imageio.cert_config_map) || imageio.insecure_skip_verify == Some(true);
        if !given(&imageio.secret_ref) || imageio.disk_id.is_empty() || !trusts {
            return Err("spec.source.Imageio source Imageio is not valid: it takes secretRef, diskId, and certConfigMap or insecureSkipVerify".to_owned());
        }
        scheme(&imageio.url, &["http", "https"])?;
    }
    if let Some(vddk) = &source.vddk {
        let parts = [
            &vddk.secret_ref,
            &vddk.uuid,
            &vddk.backing_file,
            &vddk.thumbprint,
        ];
        if !parts.into_iter().all(given) {
            return Err("spec.source.VDDK source VDDK is not valid: it takes secretRef, uuid, backingFile and thumbprint".to_owned());
        }
        scheme(vddk.url.as_deref().unwrap_or_default(), &["http", "https"])?;
    }
    for (name, object) in [("PVC", &source.pvc), ("Snapshot", &source.snapshot)] {
        if let Some(object) = object
            && (object.namespace.is_empty() || object.name.is_empty())
        {
            return Err(format!(
                "spec.source.{name} source {name} is not valid: it takes namespace and name"
            ));
        }
    }
    Ok(())
}

fn registry(registry: &RegistrySource) -> Result<(), String> {
    let by_node = registry.pull_method.as_deref() == Some("node");
    match (&registry.url, &registry.image_stream) {
        (Some(_), Some(_)) | (None, None) => {
            return Err("Source registry should have either URL or ImageStream".to_owned());
        }
        (Some(url), None) => {
            let scheme = url.split_once(':').map(|(scheme, _)| scheme);
            if !["docker", "oci-archive"].contains(&scheme.unwrap_or_default()) {
                return Err(format!(
                    "Illegal registry source URL scheme {}: it is docker or oci-archive",
                    scheme.unwrap_or("(none)")
                ));
            }
        }
        (None, Some(_)) => {}
    }
    if let Some(method) = &registry.pull_method
        && !["pod", "node", ""].contains(&method.as_str())
    {
        return Err(format!(
            "ImportMethod {method} is neither pod, node or \"\""
        ));
    }
    match registry.image_stream.as_deref() {
        Some("") => Err("Source registry ImageStream is not valid".to_owned()),
        Some(_) if !by_node => Err(
            "Source registry ImageStream is supported only with node pull import method".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Addresses may hold passwords, so only the scheme is shown.
fn scheme(url: &str, allowed: &[&str]) -> Result<(), String> {
    if url.is_empty() {
        return Err("spec.source source URL is empty".to_owned());
    }
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err("spec.source Invalid source URL: it has no scheme".to_owned());
    };
    if !allowed.iter().any(|one| scheme.eq_ignore_ascii_case(one)) {
        return Err(format!(
            "spec.source Invalid source URL scheme: {scheme} is none of {}",
            allowed.join(", ")
        ));
    }
    if rest.trim_start_matches('/').is_empty() {
        return Err(
            "spec.source Invalid source URL: there is nothing behind its scheme".to_owned(),
        );
    }
    Ok(())
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

    fn imageio() -> Value {
        json!({"imageio": {
            "url": "https://h/api", "diskId": "d", "secretRef": "s", "insecureSkipVerify": true,
        }})
    }

    fn claim() -> Value {
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
    }

    fn device() -> Value {
        let mut claim = claim();
        claim["volumeMode"] = json!("Block");
        claim
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
            json!({"source": imageio(), "checkpoints": [{"current": "a"}], "pvc": claim()}),
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
                "Invalid source URL scheme",
            ),
            (
                json!({"source": {"http": {"url": "http://"}}, "pvc": claim()}),
                "Invalid source URL",
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
            (
                json!({"source": http(), "storage": {}}),
                "Storage size is missing",
            ),
            (
                json!({"source": http(), "contentType": "archive", "pvc": device()}),
                "ContentType Archive cannot have block volumeMode",
            ),
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
                json!({"source": imageio(), "contentType": "archive", "pvc": claim()}),
                "must be kubevirt when Source is Imageio",
            ),
            (
                json!({"source": http(), "checkpoints": [{"current": "a"}], "pvc": claim()}),
                "imageio and vddk only",
            ),
            (
                json!({"source": imageio(), "checkpoints": [{"previous": "a"}], "pvc": claim()}),
                "a name in current",
            ),
            (
                json!({"sourceRef": {"kind": "Other", "name": "x"}, "storage": {}}),
                "Unsupported sourceRef kind Other",
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
