//! Which entry of the [tables](super::capabilities) a storage class belongs to.
//!
//! Mostly that is its provisioner. Some provisioners make volumes of several sorts, and the class's
//! parameters tell which; the words are those of the provisioners' manuals.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;

/// The key of an entry; `None` where the parameters are none that are known.
pub(super) fn key(class: &StorageClass) -> Option<String> {
    let none = BTreeMap::new();
    let parameters = Parameters(class.parameters.as_ref().unwrap_or(&none));
    let name = class.provisioner.as_str();
    let sort = match name {
        "pxd.portworx.com" => match parameters.get("backend") {
            "pure_block" => "/pure_block",
            "pure_fa_file" => "/pure_fa_file",
            "" if parameters.shared_by_nfs() => "/nfs",
            _ => "",
        },
        "kubernetes.io/portworx-volume" if parameters.shared_by_nfs() => "/nfs",
        "csi.trident.netapp.io" => trident(&parameters)?,
        "infinibox-csi-driver" => match parameters.get("storage_protocol") {
            "iscsi" | "fc" => "/iscsiorfibrechannel",
            "nvme" => "/nvme",
            "nfs" | "nfs_treeq" => "/nfs",
            _ => return None,
        },
        "csi.san.synology.com" => match parameters.get("protocol") {
            "iscsi" | "" => "/iscsi",
            "smb" => "/smb",
            "nfs" | "nfs_treeq" => "/nfs",
            _ => return None,
        },
        "csi.vsphere.vmware.com" if parameters.filesystem().contains("nfs") => "/nfs",
        "csi-powerstore.dellemc.com" | "csi-vxflexos.dellemc.com" | "csi-powermax.dellemc.com"
            if parameters.filesystem() == "nfs" =>
        {
            "/nfs"
        }
        "csi-unity.dellemc.com" if parameters.get("protocol").eq_ignore_ascii_case("nfs") => "/nfs",
        "csi.huawei.com" if parameters.get("protocol") == "nfs" => "/nfs",
        "driver.longhorn.io" => {
            let set = |name| !parameters.get(name).is_empty();
            match parameters.get("migratable") {
                "true" => "/migratable",
                _ if set("nfsOptions") => "/nfs",
                _ if set("fsType") => "/fs",
                _ => "",
            }
        }
        "ebs.csi.aws.com" => match parameters.get("type") {
            "io1" => "/io1",
            "io2" => "/io2",
            "gp2" | "gp3" => "/gp",
            _ => "",
        },
        "pd.csi.storage.gke.io" if parameters.get("type").starts_with("hyperdisk-") => "/hyperdisk",
        _ => "",
    };
    Some(format!("{name}{sort}"))
}

fn trident(parameters: &Parameters<'_>) -> Option<&'static str> {
    let backend = parameters.get("backendType");
    let selected = || {
        let mut words = parameters.get("selector").split([';', ',']).map(str::trim);
        words.any(|word| word == "performance=flex")
    };
    match backend {
        backend if backend.starts_with("ontap-nas") => Some("/ontap-nas"),
        backend if backend.starts_with("ontap-san") => Some("/ontap-san"),
        "google-cloud-netapp-volumes" if selected() => Some("/gcnv-flex"),
        _ => None,
    }
}

/// What a class tells its provisioner; what is not there is empty.
struct Parameters<'a>(&'a BTreeMap<String, String>);

impl Parameters<'_> {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn filesystem(&self) -> String {
        self.get("csi.storage.k8s.io/fstype").to_lowercase()
    }

    fn shared_by_nfs(&self) -> bool {
        let mut options = self.get("sharedv4_mount_options").split(',');
        let has = |wanted: &str| options.clone().any(|option| option == wanted);
        let both = has("vers=3.0") && has("nolock");
        options.next().is_some() && both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(provisioner: &str, parameters: &[(&str, &str)]) -> StorageClass {
        let pairs = parameters.iter();
        StorageClass {
            provisioner: provisioner.to_owned(),
            parameters: Some(
                pairs
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
            ..StorageClass::default()
        }
    }

    fn check(provisioner: &str, parameters: &[(&str, &str)], expected: Option<&str>) {
        let found = key(&class(provisioner, parameters));
        assert_eq!(found.as_deref(), expected, "{provisioner} {parameters:?}");
    }

    #[test]
    fn parameters_tell_which_sort_of_volumes_a_class_has() {
        let both = "nolock,vers=3.0";
        for (provisioner, parameters, expected) in [
            (
                "rancher.io/local-path",
                &[][..],
                Some("rancher.io/local-path"),
            ),
            ("pxd.portworx.com", &[], Some("pxd.portworx.com")),
            (
                "pxd.portworx.com",
                &[("backend", "pure_block")],
                Some("pxd.portworx.com/pure_block"),
            ),
            (
                "pxd.portworx.com",
                &[("sharedv4_mount_options", both)],
                Some("pxd.portworx.com/nfs"),
            ),
            (
                "pxd.portworx.com",
                &[("sharedv4_mount_options", "nolock")],
                Some("pxd.portworx.com"),
            ),
            (
                "kubernetes.io/portworx-volume",
                &[("sharedv4_mount_options", both)],
                Some("kubernetes.io/portworx-volume/nfs"),
            ),
            (
                "csi.trident.netapp.io",
                &[("backendType", "ontap-san-economy")],
                Some("csi.trident.netapp.io/ontap-san"),
            ),
            (
                "csi.trident.netapp.io",
                &[
                    ("backendType", "google-cloud-netapp-volumes"),
                    ("selector", "a=b; performance=flex"),
                ],
                Some("csi.trident.netapp.io/gcnv-flex"),
            ),
            ("csi.trident.netapp.io", &[], None),
            (
                "infinibox-csi-driver",
                &[("storage_protocol", "fc")],
                Some("infinibox-csi-driver/iscsiorfibrechannel"),
            ),
            ("infinibox-csi-driver", &[], None),
        ] {
            check(provisioner, parameters, expected);
        }
    }

    #[test]
    fn filesystems_and_protocols_tell_it_too() {
        let fstype = "csi.storage.k8s.io/fstype";
        for (provisioner, parameters, expected) in [
            (
                "csi.san.synology.com",
                &[][..],
                Some("csi.san.synology.com/iscsi"),
            ),
            ("csi.san.synology.com", &[("protocol", "x")], None),
            (
                "csi.vsphere.vmware.com",
                &[(fstype, "NFS4")],
                Some("csi.vsphere.vmware.com/nfs"),
            ),
            (
                "csi-powermax.dellemc.com",
                &[(fstype, "nfs")],
                Some("csi-powermax.dellemc.com/nfs"),
            ),
            (
                "csi-unity.dellemc.com",
                &[("protocol", "NFS")],
                Some("csi-unity.dellemc.com/nfs"),
            ),
            (
                "csi.huawei.com",
                &[("protocol", "NFS")],
                Some("csi.huawei.com"),
            ),
            (
                "driver.longhorn.io",
                &[("migratable", "true"), ("fsType", "xfs")],
                Some("driver.longhorn.io/migratable"),
            ),
            (
                "driver.longhorn.io",
                &[("fsType", "xfs")],
                Some("driver.longhorn.io/fs"),
            ),
            (
                "ebs.csi.aws.com",
                &[("type", "gp3")],
                Some("ebs.csi.aws.com/gp"),
            ),
            (
                "pd.csi.storage.gke.io",
                &[("type", "hyperdisk-balanced")],
                Some("pd.csi.storage.gke.io/hyperdisk"),
            ),
            (
                "pd.csi.storage.gke.io",
                &[("type", "pd-ssd")],
                Some("pd.csi.storage.gke.io"),
            ),
        ] {
            check(provisioner, parameters, expected);
        }
    }
}
