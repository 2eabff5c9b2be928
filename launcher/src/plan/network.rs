//! Network interfaces, all of them behind QEMU's user-mode network.
//!
//! The guest sees what it would see behind `masquerade` in a cluster: 10.0.2.2 for itself and
//! 10.0.2.1 as its router. It reaches out through the sockets of the QEMU process. Nothing
//! reaches in but the ports asked for, and these from 127.0.0.1 only. What QEMU does not let us
//! close: connections of the guest to its router arrive at the host's own 127.0.0.1.

use std::net::Ipv4Addr;

use longshore_crds::{
    FieldPath,
    virtual_machine_instance::{Interface, Network as NetworkSpec, VirtualMachineInstanceSpec},
};
use serde_json::Value;

use super::{
    Host,
    argv::{Argv, Properties, object},
    identity::Identity,
    names,
    pci::{self, Slots},
    problem::ProblemKind,
    report::Report,
};

/// The network behind `masquerade` in a cluster, unless the manifest names another.
const DEFAULT_NETWORK: Subnet = Subnet {
    base: Ipv4Addr::new(10, 0, 2, 0),
    bits: 24,
};
const BINDINGS: &str = "masquerade or bridge";
const NETWORKS: &str = "pod or multus";

/// A port of the guest to be reached through a port of 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// Whether it is UDP, and not TCP.
    pub udp: bool,
    /// Port on the host's loopback address; 0 lets the kernel choose.
    pub host_port: u16,
    /// Port of the guest.
    pub guest_port: u16,
}

#[derive(Debug)]
pub(super) struct Network {
    hostname: String,
    interfaces: Vec<PlannedInterface>,
    forwards: Vec<PortForward>,
}

#[derive(Debug)]
struct PlannedInterface {
    driver: &'static str,
    mac: String,
    subnet: Subnet,
    /// Connected to nothing: there is no such network here.
    isolated: bool,
    boot_order: Option<u32>,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet {
    base: Ipv4Addr,
    bits: u32,
}

impl Subnet {
    /// Reads `10.0.2.0/24`; the network must hold a router, a resolver and a guest.
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let base: Ipv4Addr = base.parse().ok()?;
        let bits = bits.parse().ok().filter(|bits| (8..=29).contains(bits))?;
        let host_part = u32::MAX.checked_shr(bits)?;
        Some(Self {
            base: Ipv4Addr::from(u32::from(base) & !host_part),
            bits,
        })
    }

    fn host(self, number: u32) -> String {
        Ipv4Addr::from(u32::from(self.base).saturating_add(number)).to_string()
    }
}

pub(super) fn plan(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    identity: &Identity,
    host: &Host,
    report: &mut Report,
) -> Network {
    let written = &spec.domain.devices.interfaces;
    let interfaces_at = at.key("domain").key("devices").key("interfaces");
    check_counterparts(spec, at, &interfaces_at, report);
    if written.len() > pci::INTERFACES {
        report.problem(
            &interfaces_at,
            ProblemKind::TooMany {
                what: "interfaces",
                count: written.len(),
                limit: pci::INTERFACES,
            },
        );
    }
    let mut interfaces = Vec::new();
    for (index, interface) in written.iter().enumerate() {
        let at_interface = interfaces_at.index(index);
        let planned = plan_interface(interface, index, spec, at, &at_interface, identity, report);
        interfaces.push(planned);
    }
    let wanted = spec.domain.devices.autoattach_pod_interface != Some(false);
    if written.is_empty() && wanted {
        interfaces.push(PlannedInterface {
            driver: "virtio-net-pci",
            mac: identity.mac_address(0),
            subnet: DEFAULT_NETWORK,
            isolated: false,
            boot_order: None,
        });
    }
    if interfaces.is_empty() && !host.forwards.is_empty() {
        report.notice(
            &interfaces_at,
            "there is no interface, so no port is forwarded",
        );
    }
    Network {
        hostname: identity.hostname.clone(),
        interfaces,
        forwards: host.forwards.clone(),
    }
}

/// Interfaces and networks go together by name, one to one.
fn check_counterparts(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    interfaces_at: &FieldPath,
    report: &mut Report,
) {
    let interfaces = &spec.domain.devices.interfaces;
    let networks_at = at.key("networks");
    let name_at = |at: &FieldPath, index: usize| at.index(index).key("name");
    names::check_unique(
        interfaces
            .iter()
            .enumerate()
            .map(|(i, it)| (it.name.as_str(), name_at(interfaces_at, i))),
        report,
    );
    names::check_unique(
        spec.networks
            .iter()
            .enumerate()
            .map(|(i, it)| (it.name.as_str(), name_at(&networks_at, i))),
        report,
    );
    for (index, interface) in interfaces.iter().enumerate() {
        let path = name_at(interfaces_at, index);
        if interface.name.is_empty() {
            report.problem(&path, ProblemKind::Required);
        } else if !spec
            .networks
            .iter()
            .any(|network| network.name == interface.name)
        {
            let name = interface.name.clone();
            report.problem(
                &path,
                ProblemKind::NoCounterpart {
                    what: "network",
                    name,
                },
            );
        }
    }
    let mut pods = 0;
    for (index, network) in spec.networks.iter().enumerate() {
        let path = networks_at.index(index);
        if !interfaces
            .iter()
            .any(|interface| interface.name == network.name)
        {
            let name = network.name.clone();
            report.problem(
                &path.key("name"),
                ProblemKind::NoCounterpart {
                    what: "interface",
                    name,
                },
            );
        }
        let set = [
            ("pod", network.pod.is_some()),
            ("multus", network.multus.is_some()),
        ];
        let found: Vec<_> = set
            .into_iter()
            .filter_map(|(name, is)| is.then_some(name))
            .collect();
        if found.len() != 1 {
            report.problem(
                &path,
                ProblemKind::ExactlyOne {
                    choices: NETWORKS,
                    found,
                },
            );
        }
        pods += usize::from(network.pod.is_some());
    }
    if pods > 1 {
        report.problem(
            &networks_at,
            ProblemKind::TooMany {
                what: "pod networks",
                count: pods,
                limit: 1,
            },
        );
    }
}

fn plan_interface(
    interface: &Interface,
    index: usize,
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    at_interface: &FieldPath,
    identity: &Identity,
    report: &mut Report,
) -> PlannedInterface {
    let networks = spec.networks.iter().enumerate();
    let network = networks
        .clone()
        .find(|(_, network)| network.name == interface.name);
    let at_network = network.map(|(index, _)| at.key("networks").index(index));
    let network = network.map(|(_, network)| network);
    let isolated = network.is_some_and(|network| network.multus.is_some());
    if let (true, Some(path)) = (isolated, &at_network) {
        report.notice(
            &path.key("multus"),
            "there is no such network here: the guest has the interface, and nothing is connected to it",
        );
    }
    check_binding(interface, isolated, at_interface, report);
    let subnet = match (network, at_network) {
        (Some(network), Some(path)) => subnet(network, &path, report),
        _ => DEFAULT_NETWORK,
    };
    if !interface.ports.is_empty() {
        let path = at_interface.key("ports");
        report.notice(
            &path,
            "no port is open to the outside but those asked for at the start",
        );
    }
    PlannedInterface {
        driver: driver(interface, at_interface, report),
        mac: mac_address(interface, at_interface, report)
            .unwrap_or_else(|| identity.mac_address(index)),
        subnet,
        isolated,
        boot_order: interface.boot_order,
    }
}

fn check_binding(interface: &Interface, isolated: bool, at: &FieldPath, report: &mut Report) {
    let set = [
        ("masquerade", interface.masquerade.is_some()),
        ("bridge", interface.bridge.is_some()),
        ("sriov", interface.sriov.is_some()),
        ("passtBinding", interface.passt_binding.is_some()),
        ("binding", interface.binding.is_some()),
    ];
    let found: Vec<_> = set
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect();
    match found.as_slice() {
        ["masquerade"] => {}
        // That nothing is connected has been said already.
        ["bridge" | "passtBinding" | "binding"] if isolated => {}
        [kind @ ("bridge" | "passtBinding" | "binding")] => report.notice(
            &at.key(*kind),
            "the interface is on the user-mode network, as with masquerade: a private address, and nothing reaches in",
        ),
        ["sriov"] => report.problem(&at.key("sriov"), ProblemKind::Unsupported {
            what: "a virtual function of a network card",
            remedy: "use masquerade",
        }),
        _ => report.problem(at, ProblemKind::ExactlyOne { choices: BINDINGS, found }),
    }
}

fn subnet(network: &NetworkSpec, at: &FieldPath, report: &mut Report) -> Subnet {
    let Some(pod) = &network.pod else {
        return DEFAULT_NETWORK;
    };
    if pod.vm_ipv6_network_cidr.is_some() {
        let path = at.key("pod").key("vmIPv6NetworkCIDR");
        report.notice(
            &path,
            "the guest gets IPv6 addresses of QEMU's user-mode network",
        );
    }
    let Some(text) = &pod.vm_network_cidr else {
        return DEFAULT_NETWORK;
    };
    Subnet::parse(text).unwrap_or_else(|| {
        report.problem(
            &at.key("pod").key("vmNetworkCIDR"),
            ProblemKind::Invalid {
                value: text.clone(),
                expected: "an IPv4 network of /8 to /29, such as 10.0.2.0/24",
            },
        );
        DEFAULT_NETWORK
    })
}

fn driver(interface: &Interface, at: &FieldPath, report: &mut Report) -> &'static str {
    match interface.model.as_deref().unwrap_or("virtio") {
        "" | "virtio" => "virtio-net-pci",
        "e1000" => "e1000",
        "e1000e" => "e1000e",
        "igb" => "igb",
        "ne2k_pci" => "ne2k_pci",
        "pcnet" => "pcnet",
        "rtl8139" => "rtl8139",
        other => {
            report.problem(&at.key("model"), ProblemKind::Invalid {
                value: other.to_owned(),
                expected: "a network card (virtio, e1000, e1000e, igb, ne2k_pci, pcnet or rtl8139)",
            });
            "virtio-net-pci"
        }
    }
}

fn mac_address(interface: &Interface, at: &FieldPath, report: &mut Report) -> Option<String> {
    let text = interface.mac_address.as_ref()?;
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let octet = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let first = parts
        .first()
        .and_then(|part| u8::from_str_radix(part, 16).ok());
    // The lowest bit of the first octet marks groups of receivers.
    let is_unicast = first.is_some_and(|octet| octet & 1 == 0);
    if parts.len() != 6 || !parts.iter().all(octet) || !is_unicast {
        report.problem(
            &at.key("macAddress"),
            ProblemKind::Invalid {
                value: text.clone(),
                expected: "the hardware address of one interface, such as 02:00:00:00:00:01",
            },
        );
        return None;
    }
    Some(parts.join(":").to_ascii_lowercase())
}

impl Network {
    pub(super) fn arguments(&self, slots: &mut Slots, argv: &mut Argv) {
        for (index, interface) in self.interfaces.iter().enumerate() {
            let id = format!("net{index}");
            let subnet = interface.subnet;
            let mut backend = Properties::of("type", "user")
                .with("id", id.as_str())
                .with("net", format!("{}/{}", subnet.base, subnet.bits))
                .with("host", subnet.host(1))
                .with("dhcpstart", subnet.host(2))
                .with("dns", subnet.host(3))
                .with("hostname", self.hostname.as_str());
            if interface.isolated {
                backend = backend.with("restrict", true);
            }
            if index == 0 && !self.forwards.is_empty() {
                backend = backend.with("hostfwd", self.forwards(subnet));
            }
            argv.json("-netdev", &backend);
            let mut device = Properties::of("driver", interface.driver)
                .with("id", format!("nic{index}"))
                .with("netdev", id.as_str())
                .with("mac", interface.mac.as_str())
                .with("bus", "pcie.0")
                .with("addr", slots.interface())
                .with_some("bootindex", interface.boot_order);
            if interface.boot_order.is_none() {
                // No boot ROM, for it is not booted from.
                device = device.with("romfile", "");
            }
            argv.json("-device", &device);
        }
    }

    fn forwards(&self, subnet: Subnet) -> Value {
        let text = |forward: &PortForward| {
            let protocol = if forward.udp { "udp" } else { "tcp" };
            let PortForward {
                udp: _,
                host_port,
                guest_port,
            } = forward;
            format!(
                "{protocol}:127.0.0.1:{host_port}-{}:{guest_port}",
                subnet.host(2)
            )
        };
        self.forwards
            .iter()
            .map(|forward| object("str", text(forward)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cut_to_their_prefix() {
        let net = Subnet::parse("10.9.8.7/16").unwrap();
        assert_eq!(
            (net.base.to_string().as_str(), net.host(2).as_str()),
            ("10.9.0.0", "10.9.0.2")
        );
        for wrong in [
            "",
            "10.0.2.0",
            "10.0.2.0/30",
            "10.0.2.0/7",
            "10.0.2.0/-1",
            "fd00::/64",
            "10.0.2/24",
        ] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }
}
