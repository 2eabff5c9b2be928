//! Reads a manifest: one machine and the objects it refers to, in one or more YAML documents.
//!
//! Loading is three steps, each of which can be refused: YAML to plain values under a budget
//! (`yaml`), overrides of the command line ([`Override`]), plain values to typed objects. Fields
//! that the types do not model are found by comparing each typed object with its document
//! (`unknown`) and listed in [`Manifest::unknown`].
//!
//! Whether a machine makes sense is not decided here: the launcher validates.

mod set;
mod unknown;
mod yaml;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    DataVolume, FieldPath, VirtualMachine, VirtualMachineInstance,
    core_objects::{ConfigMap, Secret},
    virtual_machine::{InstanceTemplate, RunStrategy, VirtualMachineSpec},
};

pub use set::{Override, OverrideError};

/// Largest manifest read, in bytes: what a cluster's API server would take for one object.
pub const MAX_BYTES: usize = 1 << 20;

/// A machine and everything that was in the file with it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The machine. A lone instance is wrapped into a machine with `runStrategy: Once`.
    pub vm: VirtualMachine,
    /// Where the instance is in the machine's document: `spec.template.spec`, or `spec`.
    pub instance_path: FieldPath,
    /// Data volumes in documents of their own.
    pub data_volumes: Vec<DataVolume>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// Config maps.
    pub config_maps: Vec<ConfigMap>,
    /// Documents of other kinds, which were not read any further.
    pub others: Vec<ObjectId>,
    /// Fields that the types do not model.
    pub unknown: Vec<UnknownField>,
}

/// Which object a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectId {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, empty where there is none.
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.kind, self.name)
    }
}

/// A field that was read over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// The object that has it.
    pub object: ObjectId,
    /// Where it is in the object.
    pub path: FieldPath,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file is too large.
    #[error("the manifest has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The largest size read.
        limit: usize,
    },
    /// The file is not UTF-8.
    #[error("the manifest is not UTF-8 text")]
    NotText {
        /// Where it stops being text.
        source: std::str::Utf8Error,
    },
    /// The file is not YAML, or breaks a limit on nesting, nodes or aliases.
    #[error("the manifest is not YAML that can be read")]
    Yaml {
        /// What is wrong, and where.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is something else than an object.
    #[error("document {document} of the manifest is not an object with apiVersion and kind")]
    NotAnObject {
        /// Number of the document, from 1.
        document: usize,
    },
    /// A field has the wrong type.
    #[error("{object}: cannot read the field {path}")]
    Field {
        /// The object that has it.
        object: ObjectId,
        /// The field.
        path: FieldPath,
        /// What is wrong with it.
        source: Box<serde_json::Error>,
    },
    /// There is no machine in the file.
    #[error("the manifest has no VirtualMachine or VirtualMachineInstance of kubevirt.io/v1")]
    NoMachine,
    /// There is more than one machine in the file.
    #[error("the manifest has more than one machine: {first} and {second}")]
    SeveralMachines {
        /// The first one.
        first: Box<ObjectId>,
        /// The second one.
        second: Box<ObjectId>,
    },
    /// Two objects of one kind have the same name.
    #[error("the manifest has {object} twice")]
    Duplicate {
        /// The object.
        object: ObjectId,
    },
    /// An override of the command line cannot be applied.
    #[error("cannot set {path} of {object}")]
    Override {
        /// The object that was to be changed.
        object: ObjectId,
        /// The path given.
        path: FieldPath,
        /// What stands in the way.
        source: Box<OverrideError>,
    },
}

impl ManifestError {
    /// The cause in one word, for people and machines to match on.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "ManifestTooLarge",
            Self::NotText { .. } | Self::Yaml { .. } | Self::NotAnObject { .. } => {
                "ManifestMalformed"
            }
            Self::Field { .. } => "FieldInvalid",
            Self::NoMachine => "MachineMissing",
            Self::SeveralMachines { .. } => "MachineAmbiguous",
            Self::Duplicate { .. } => "ObjectDuplicate",
            Self::Override { .. } => "OverrideInvalid",
        }
    }
}

impl Manifest {
    /// Reads a manifest, applying overrides to its machine.
    pub fn parse(bytes: &[u8], overrides: &[Override]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge {
                size: bytes.len(),
                limit: MAX_BYTES,
            });
        }
        let text =
            std::str::from_utf8(bytes).map_err(|source| ManifestError::NotText { source })?;
        let documents = yaml::documents(text).map_err(|source| ManifestError::Yaml {
            source: Box::new(source),
        })?;
        let mut loader = Loader {
            overrides,
            ..Loader::default()
        };
        for (index, document) in documents.into_iter().enumerate() {
            loader.add(index + 1, document)?;
        }
        loader.finish()
    }

    /// The secret of this name.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets
            .iter()
            .find(|secret| secret.metadata.name.as_deref() == Some(name))
    }

    /// The config map of this name.
    pub fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps
            .iter()
            .find(|map| map.metadata.name.as_deref() == Some(name))
    }
}

#[derive(Default)]
struct Loader<'a> {
    overrides: &'a [Override],
    machine: Option<(ObjectId, VirtualMachine)>,
    seen: Vec<ObjectId>,
    data_volumes: Vec<DataVolume>,
    secrets: Vec<Secret>,
    config_maps: Vec<ConfigMap>,
    others: Vec<ObjectId>,
    unknown: Vec<UnknownField>,
}

impl Loader<'_> {
    fn add(&mut self, number: usize, document: Value) -> Result<(), ManifestError> {
        let object = identify(&document).ok_or(ManifestError::NotAnObject { document: number })?;
        match (object.api_version.as_str(), object.kind.as_str()) {
            (VirtualMachine::API_VERSION, VirtualMachine::KIND) => {
                let document = self.overridden(&object, document)?;
                let vm = self.typed(&object, &document)?;
                return self.set_machine(object, vm);
            }
            (VirtualMachineInstance::API_VERSION, VirtualMachineInstance::KIND) => {
                let document = self.overridden(&object, document)?;
                let vmi = self.typed(&object, &document)?;
                return self.set_machine(object, wrap(vmi));
            }
            (DataVolume::API_VERSION, DataVolume::KIND) => {
                let volume = self.typed(&object, &document)?;
                self.data_volumes.push(volume);
            }
            ("v1", Secret::KIND) => {
                let secret = self.typed(&object, &document)?;
                self.secrets.push(secret);
            }
            ("v1", ConfigMap::KIND) => {
                let map = self.typed(&object, &document)?;
                self.config_maps.push(map);
            }
            _ => {
                self.others.push(object);
                return Ok(());
            }
        }
        if self.seen.contains(&object) {
            return Err(ManifestError::Duplicate { object });
        }
        self.seen.push(object);
        Ok(())
    }

    fn overridden(&self, object: &ObjectId, mut document: Value) -> Result<Value, ManifestError> {
        for change in self.overrides {
            change
                .apply(&mut document)
                .map_err(|source| ManifestError::Override {
                    object: object.clone(),
                    path: change.path().clone(),
                    source: Box::new(source),
                })?;
        }
        Ok(document)
    }

    fn typed<T>(&mut self, object: &ObjectId, document: &Value) -> Result<T, ManifestError>
    where
        T: DeserializeOwned + Serialize,
    {
        let field = |path: FieldPath, source| ManifestError::Field {
            object: object.clone(),
            path,
            source: Box::new(source),
        };
        let typed: T = serde_path_to_error::deserialize(document).map_err(|error| {
            let path = FieldPath::from(error.path());
            let source = error.into_inner();
            // The text quotes the value: a password that looks like a number, for one.
            let quotes_secret = object.kind == Secret::KIND;
            let hidden = || serde::de::Error::custom("the value is not of the type expected");
            field(path, if quotes_secret { hidden() } else { source })
        })?;
        let modelled =
            serde_json::to_value(&typed).map_err(|source| field(FieldPath::root(), source))?;
        let paths = unknown::fields(document, &modelled);
        self.unknown
            .extend(paths.into_iter().map(|path| UnknownField {
                object: object.clone(),
                path,
            }));
        Ok(typed)
    }

    fn set_machine(&mut self, object: ObjectId, vm: VirtualMachine) -> Result<(), ManifestError> {
        if let Some((first, _)) = self.machine.take() {
            return Err(ManifestError::SeveralMachines {
                first: Box::new(first),
                second: Box::new(object),
            });
        }
        self.machine = Some((object, vm));
        Ok(())
    }

    fn finish(self) -> Result<Manifest, ManifestError> {
        let Self {
            overrides: _,
            machine,
            seen: _,
            data_volumes,
            secrets,
            config_maps,
            others,
            unknown,
        } = self;
        let (object, vm) = machine.ok_or(ManifestError::NoMachine)?;
        let spec = FieldPath::root().key("spec");
        let instance_path = match object.kind.as_str() {
            VirtualMachine::KIND => spec.key("template").key("spec"),
            _ => spec,
        };
        Ok(Manifest {
            vm,
            instance_path,
            data_volumes,
            secrets,
            config_maps,
            others,
            unknown,
        })
    }
}

fn identify(document: &Value) -> Option<ObjectId> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(ObjectId {
        api_version: text(document.get("apiVersion")?)?,
        kind: text(document.get("kind")?)?,
        name: document
            .pointer("/metadata/name")
            .and_then(text)
            .unwrap_or_default(),
    })
}

/// An instance without a machine runs once: nothing would make it again.
fn wrap(vmi: VirtualMachineInstance) -> VirtualMachine {
    VirtualMachine {
        api_version: vmi.api_version,
        kind: VirtualMachine::KIND.to_owned(),
        metadata: vmi.metadata.clone(),
        spec: VirtualMachineSpec {
            run_strategy: Some(RunStrategy::Once),
            template: InstanceTemplate {
                metadata: vmi.metadata,
                spec: vmi.spec,
            },
            ..VirtualMachineSpec::default()
        },
        status: vmi.status,
    }
}

#[cfg(test)]
mod tests;
