//! The certificates of a cluster, made by `openssl`, and the kubeconfigs that carry them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::place::Place;
use crate::paths;
use crate::shell::Run;

/// One authority for everything but the front proxy, as small clusters have it.
#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
}

/// Whom a certificate names.
struct Subject<'a> {
    file: &'a str,
    user: &'a str,
    group: Option<&'a str>,
    /// What a server is reached by, as `openssl` writes it; none for clients.
    names: &'a [String],
}

const fn client<'a>(file: &'a str, user: &'a str, group: Option<&'a str>) -> Subject<'a> {
    Subject {
        file,
        user,
        group,
        names: &[],
    }
}

impl Pki {
    /// Makes all of it. `host` is the address that the API server is reached by, besides those that
    /// pods use; `node` the node's name and address.
    pub(super) fn make(place: &Place, host: &str, node: Option<(&str, &str)>) -> Result<Self> {
        let pki = Self {
            folder: place.make("pki")?,
        };
        pki.authority("ca", "longshore-test-cluster")?;
        pki.authority("front-proxy-ca", "longshore-test-front-proxy")?;
        let mut names: Vec<String> = [
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local",
            "DNS:localhost",
            "IP:127.0.0.1",
            "IP:10.96.0.1",
        ]
        .map(str::to_owned)
        .into();
        names.push(format!("IP:{host}"));
        let server = Subject {
            file: "apiserver",
            user: "kube-apiserver",
            group: None,
            names: &names,
        };
        pki.leaf("ca", &server)?;
        for subject in [
            client("admin", "longshore-admin", Some("system:masters")),
            client(
                "apiserver-kubelet",
                "kube-apiserver",
                Some("system:masters"),
            ),
            client("controller-manager", "system:kube-controller-manager", None),
            client("scheduler", "system:kube-scheduler", None),
            client("proxy", "system:kube-proxy", None),
        ] {
            pki.leaf("ca", &subject)?;
        }
        pki.leaf(
            "front-proxy-ca",
            &client("front-proxy", "front-proxy-client", None),
        )?;
        if let Some((name, address)) = node {
            let user = format!("system:node:{name}");
            pki.leaf("ca", &client("kubelet", &user, Some("system:nodes")))?;
            let names = [format!("DNS:{name}"), format!("IP:{address}")];
            pki.leaf(
                "ca",
                &Subject {
                    file: "kubelet-server",
                    user: &user,
                    group: Some("system:nodes"),
                    names: &names,
                },
            )?;
        }
        Run::new("openssl")
            .args(["genrsa", "-out"])
            .arg(pki.key("service-accounts"))
            .arg("2048")
            .quiet()
            .capture()?;
        Ok(pki)
    }

    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn authority(&self, name: &str, common: &str) -> Result<()> {
        Run::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "365"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"])
            .arg(format!("/CN={common}"))
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .arg("-keyout")
            .arg(self.key(name))
            .arg("-out")
            .arg(self.certificate(name))
            .quiet()
            .capture()
            .map(drop)
    }

    fn leaf(&self, authority: &str, subject: &Subject<'_>) -> Result<()> {
        let request = self.folder.join(format!("{}.csr", subject.file));
        let group = subject.group.map(|group| format!("/O={group}"));
        Run::new("openssl")
            .args(["req", "-new", "-newkey", "ec", "-nodes"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"])
            .arg(format!("{}/CN={}", group.unwrap_or_default(), subject.user))
            .arg("-keyout")
            .arg(self.key(subject.file))
            .arg("-out")
            .arg(&request)
            .quiet()
            .capture()?;
        let mut extensions = "keyUsage=critical,digitalSignature\n".to_owned();
        if subject.names.is_empty() {
            extensions += "extendedKeyUsage=clientAuth\n";
        } else {
            extensions += "extendedKeyUsage=serverAuth\n";
            extensions += "subjectAltName=";
            extensions += &subject.names.join(",");
            extensions += "\n";
        }
        let file = self.folder.join(format!("{}.ext", subject.file));
        paths::write(&file, extensions)?;
        Run::new("openssl")
            .args(["x509", "-req", "-days", "365", "-CAcreateserial", "-in"])
            .arg(&request)
            .arg("-CA")
            .arg(self.certificate(authority))
            .arg("-CAkey")
            .arg(self.key(authority))
            .arg("-extfile")
            .arg(&file)
            .arg("-out")
            .arg(self.certificate(subject.file))
            .quiet()
            .capture()
            .map(drop)
    }

    /// Writes a kubeconfig for whom the certificate `name` names. It holds paths, so it stays on this
    /// machine.
    pub(super) fn kubeconfig(&self, name: &str, server: &str, to: &Path) -> Result<()> {
        let text = format!(
            "apiVersion: v1
kind: Config
current-context: cluster
contexts:
- name: cluster
  context: {{cluster: cluster, user: user}}
clusters:
- name: cluster
  cluster:
    server: {server}
    certificate-authority: {}
users:
- name: user
  user:
    client-certificate: {}
    client-key: {}
",
            self.certificate("ca").display(),
            self.certificate(name).display(),
            self.key(name).display(),
        );
        paths::write(to, text)
    }
}
