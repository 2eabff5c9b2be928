//! What the importer's pod mounts, and where.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use longshore_crds::contract::Source;

use super::{
    CERTIFICATES, CREDENTIALS, GOOGLE, HEADERS, JOURNAL, JOURNAL_ROOM, PROXY_CERTIFICATES,
    PROXY_VOLUME, VDDK, VDDK_ARGUMENTS_FOLDER, Workload, keeps_journal_in_pod, pulled,
};
use crate::claim::{Claim, DEVICE, DISK_FOLDER};
use crate::import::source::Request;

#[derive(Default)]
pub(super) struct Mounts {
    pub(super) volumes: Vec<Volume>,
    pub(super) paths: Vec<VolumeMount>,
    pub(super) devices: Vec<VolumeDevice>,
}

impl Mounts {
    /// The claim, and what the source takes. Secrets are mounted and not put into variables: one that
    /// is missing keeps the pod from starting, and the kubelet says so.
    pub(super) fn of(
        claim: &PersistentVolumeClaim,
        request: &Request,
        workload: &Workload,
    ) -> Self {
        let mut mounts = Self::default();
        mounts.claim(claim);
        if keeps_journal_in_pod(claim, request) {
            mounts.own("journal", JOURNAL, Some(JOURNAL_ROOM));
        }
        if let Some(map) = &workload.proxy_authorities {
            mounts.config_map(PROXY_VOLUME, map, PROXY_CERTIFICATES);
        }
        if let Some(map) = &request.certificates {
            mounts.config_map("certs", map, CERTIFICATES);
        }
        for (number, secret) in request.secret_headers.iter().enumerate() {
            let path = format!("{HEADERS}/{number}");
            mounts.secret(&format!("headers-{number}"), secret, &path);
        }
        let by_node = request.pulled_by_node().is_some();
        if by_node {
            mounts.own(pulled::VOLUME, pulled::SHARED, Some(pulled::ROOM));
        }
        match (&request.secret, &request.import.source) {
            // It is the node's, which asks for the image.
            (Some(_), _) if by_node => {}
            (Some(secret), Source::Gcs { .. }) => mounts.secret("google", secret, GOOGLE),
            (Some(secret), _) => mounts.secret("credentials", secret, CREDENTIALS),
            (None, _) => {}
        }
        if let Source::Vddk { .. } = &request.import.source {
            mounts.own("vddk", VDDK, None);
            if let Some(map) = &request.vddk_arguments {
                mounts.config_map("vddk-args", map, VDDK_ARGUMENTS_FOLDER);
            }
        }
        mounts
    }

    /// The claim itself, as a folder or as a device.
    fn claim(&mut self, claim: &PersistentVolumeClaim) {
        let name = "cdi-data-vol".to_owned();
        self.volumes.push(Volume {
            name: name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.named().to_owned(),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
        if claim.is_block() {
            self.devices.push(VolumeDevice {
                name,
                device_path: DEVICE.to_owned(),
            });
        } else {
            self.mount(name, DISK_FOLDER);
        }
    }

    /// Room on the node, as long as the pod is there.
    fn own(&mut self, name: &str, path: &str, most: Option<&str>) {
        self.volumes.push(Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: most.map(|most| Quantity(most.to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        });
        self.mount(name.to_owned(), path);
    }

    fn config_map(&mut self, name: &str, map: &str, path: &str) {
        self.volumes.push(Volume {
            name: name.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: map.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
        self.mount(name.to_owned(), path);
    }

    fn secret(&mut self, name: &str, secret: &str, path: &str) {
        self.volumes.push(Volume {
            name: name.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        self.mount(name.to_owned(), path);
    }

    fn mount(&mut self, name: String, path: &str) {
        self.paths.push(VolumeMount {
            name,
            mount_path: path.to_owned(),
            ..VolumeMount::default()
        });
    }
}
