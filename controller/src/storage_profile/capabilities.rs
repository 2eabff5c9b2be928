//! What volumes of well-known provisioners can do, by [key](super::provisioner::key).
//!
//! Agrees with upstream's tables, since objects of one cluster must mean the same under both. Rows of our
//! own are marked: without them their classes ask everybody for access modes.

use longshore_crds::storage_profile::ClaimPropertySet;

use Ability::{RoxBlock, RoxFile, RwoBlock, RwoFile, RwxBlock, RwxFile};

/// Who may mount a volume, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ability {
    RwxBlock,
    RwoBlock,
    RoxBlock,
    RwxFile,
    RwoFile,
    RoxFile,
}

impl Ability {
    fn set(self) -> ClaimPropertySet {
        let (access, volume) = match self {
            RwxBlock => ("ReadWriteMany", "Block"),
            RwoBlock => ("ReadWriteOnce", "Block"),
            RoxBlock => ("ReadOnlyMany", "Block"),
            RwxFile => ("ReadWriteMany", "Filesystem"),
            RwoFile => ("ReadWriteOnce", "Filesystem"),
            RoxFile => ("ReadOnlyMany", "Filesystem"),
        };
        ClaimPropertySet {
            access_modes: vec![access.to_owned()],
            volume_mode: volume.to_owned(),
        }
    }
}

/// Of each, the one that is taken unless a claim wants another comes first.
fn abilities(key: &str) -> Option<&'static [Ability]> {
    Some(match key {
        // Block devices of a network, shared for the sake of live migration.
        "kubernetes.io/rbd"
        | "rbd.csi.ceph.com"
        | "rook-ceph.rbd.csi.ceph.com"
        | "openshift-storage.rbd.csi.ceph.com"
        | "ebs.csi.aws.com/io2"
        | "pd.csi.storage.gke.io/hyperdisk"
        | "hspc.csi.hitachi.com"
        | "csi.hpe.com"
        | "block.csi.ibm.com"
        | "pxd.portworx.com/pure_block"
        | "infinibox-csi-driver/iscsiorfibrechannel"
        | "infinibox-csi-driver/nvme"
        | "blockvolume.csi.oraclecloud.com"
        | "csi.san.synology.com/iscsi" => &[RwxBlock, RwoBlock, RwoFile],
        "linstor.csi.linbit.com"
        | "csi-unity.dellemc.com"
        | "csi-vxflexos.dellemc.com"
        | "csi.huawei.com" => &[RwxBlock, RwoBlock, RwoFile, RoxBlock, RoxFile],
        "csi-powermax.dellemc.com" | "csi-powerstore.dellemc.com" => {
            &[RwxBlock, RwoBlock, RwoFile, RoxBlock]
        }
        "kubesan.gitlab.io" => &[RwxBlock, RoxBlock, RwoBlock, RwoFile],
        "kubernetes.io/portworx-volume" | "pxd.portworx.com" => {
            &[RwxBlock, RwxFile, RwoBlock, RwoFile]
        }
        "csi.trident.netapp.io/ontap-san" => &[RwxBlock],
        "driver.longhorn.io/migratable" => &[RwxBlock, RwoBlock],
        // Block devices of one machine at a time.
        "kubernetes.io/aws-ebs"
        | "ebs.csi.aws.com"
        | "ebs.csi.aws.com/io1"
        | "ebs.csi.aws.com/gp"
        | "kubernetes.io/azure-disk"
        | "disk.csi.azure.com"
        | "kubernetes.io/gce-pd"
        | "pd.csi.storage.gke.io"
        | "driver.longhorn.io" => &[RwoBlock],
        "topolvm.cybozu.com"
        | "topolvm.io"
        | "cinder.csi.openstack.org"
        | "csi.ovirt.org"
        | "csi.vsphere.vmware.com"
        | "vpc.block.csi.ibm.io"
        // Ours.
        | "io.openebs.csi-mayastor" => &[RwoBlock, RwoFile],
        // Filesystems of a network.
        "csi-unity.dellemc.com/nfs"
        | "csi-vxflexos.dellemc.com/nfs"
        | "csi-isilon.dellemc.com"
        | "csi-powermax.dellemc.com/nfs"
        | "csi-powerstore.dellemc.com/nfs"
        | "csi.huawei.com/nfs" => &[RwxFile, RwoFile, RoxFile],
        "cephfs.csi.ceph.com"
        | "rook-ceph.cephfs.csi.ceph.com"
        | "openshift-storage.cephfs.csi.ceph.com"
        | "efs.csi.aws.com"
        | "spectrumscale.csi.ibm.com"
        | "kubernetes.io/portworx-volume/nfs"
        | "pxd.portworx.com/nfs"
        | "pxd.portworx.com/pure_fa_file"
        | "csi.trident.netapp.io/ontap-nas"
        | "csi.trident.netapp.io/gcnv-flex"
        | "infinibox-csi-driver/nfs"
        | "driver.longhorn.io/nfs"
        | "csi.san.synology.com/nfs"
        | "csi.san.synology.com/smb" => &[RwxFile, RwoFile],
        "csi.vsphere.vmware.com/nfs" => &[RwxFile, RwoBlock, RwoFile],
        "nfs.csi.k8s.io"
        | "k8s-sigs.io/nfs-subdir-external-provisioner"
        | "kubernetes.io/azure-file"
        | "file.csi.azure.com"
        | "manila.csi.openstack.org" => &[RwxFile],
        // Folders of one machine.
        "kubevirt.io.hostpath-provisioner"
        | "kubevirt.io/hostpath-provisioner"
        | "k8s.io/minikube-hostpath"
        | "kubernetes.io/storageos"
        | "storageos"
        | "driver.longhorn.io/fs"
        // Ours.
        | "rancher.io/local-path"
        | "openebs.io/local" => &[RwoFile],
        // Ours: cut from LVM and ZFS of one machine, for filesystems as for devices.
        "local.csi.openebs.io" | "zfs.csi.openebs.io" => &[RwoFile, RwoBlock],
        _ => return None,
    })
}

/// What claims may ask for.
pub(super) fn sets(key: &str) -> Option<Vec<ClaimPropertySet>> {
    let abilities = abilities(key)?;
    Some(abilities.iter().map(|ability| ability.set()).collect())
}

/// How disks are best cloned, where that is known.
pub(super) fn clone_strategy(key: &str) -> Option<&'static str> {
    Some(match key {
        "csi-powerstore.dellemc.com"
        | "topolvm.cybozu.com"
        | "topolvm.io"
        | "vpc.block.csi.ibm.io" => "copy",
        "csi.trident.netapp.io/ontap-nas"
        | "csi.trident.netapp.io/ontap-san"
        | "csi.trident.netapp.io/gcnv-flex"
        | "pd.csi.storage.gke.io"
        | "pd.csi.storage.gke.io/hyperdisk" => "snapshot",
        "csi-vxflexos.dellemc.com"
        | "csi-isilon.dellemc.com"
        | "csi-powermax.dellemc.com"
        | "hspc.csi.hitachi.com"
        | "csi.hpe.com"
        | "spectrumscale.csi.ibm.com"
        | "block.csi.ibm.com"
        | "rbd.csi.ceph.com"
        | "rook-ceph.rbd.csi.ceph.com"
        | "openshift-storage.rbd.csi.ceph.com"
        | "cephfs.csi.ceph.com"
        | "rook-ceph.cephfs.csi.ceph.com"
        | "openshift-storage.cephfs.csi.ceph.com"
        | "pxd.portworx.com"
        | "pxd.portworx.com/nfs"
        | "pxd.portworx.com/pure_block"
        | "infinibox-csi-driver/iscsiorfibrechannel"
        | "infinibox-csi-driver/nvme"
        | "infinibox-csi-driver/nfs"
        | "kubesan.gitlab.io"
        | "csi.san.synology.com/iscsi"
        | "csi.san.synology.com/nfs"
        | "csi.san.synology.com/smb"
        | "blockvolume.csi.oraclecloud.com" => "csi-clone",
        _ => return None,
    })
}

/// What golden images are best kept as, where that is known.
pub(super) fn source_format(key: &str) -> Option<&'static str> {
    matches!(
        key,
        "rook-ceph.rbd.csi.ceph.com"
            | "openshift-storage.rbd.csi.ceph.com"
            | "csi.trident.netapp.io/ontap-nas"
            | "csi.trident.netapp.io/ontap-san"
            | "csi.trident.netapp.io/gcnv-flex"
            | "pd.csi.storage.gke.io"
            | "pd.csi.storage.gke.io/hyperdisk"
    )
    .then_some("snapshot")
}

/// The smallest volume that there can be, where smaller ones are refused.
pub(super) fn smallest(key: &str) -> Option<&'static str> {
    Some(match key {
        "pd.csi.storage.gke.io/hyperdisk" | "ebs.csi.aws.com/io1" | "ebs.csi.aws.com/io2" => "4Gi",
        "ebs.csi.aws.com/gp"
        | "csi.san.synology.com/iscsi"
        | "csi.san.synology.com/nfs"
        | "csi.san.synology.com/smb"
        | "csi.trident.netapp.io/gcnv-flex"
        | "hspc.csi.hitachi.com" => "1Gi",
        _ => return None,
    })
}
