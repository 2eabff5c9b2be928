//! Processors, memory, machine type and firmware.

use longshore_crds::{
    FieldPath, Quantity,
    virtual_machine_instance::{
        VirtualMachineInstanceSpec,
        domain::{Cpu, CpuFeaturePolicy, Domain, RebootPolicy},
    },
};

use super::{Host, argv::Argv, names, problem::ProblemKind, report::Report};
use crate::accel::Accelerator;

/// The smallest memory a cluster takes.
const MIN_MEMORY: u64 = 1_000_000;
const MIB: u64 = 1 << 20;
/// Processors that firmware and guests address without further ado (x2APIC aside).
const MAX_CPUS: u64 = 255;

#[derive(Debug)]
pub(super) struct Compute {
    machine: String,
    bios_on_serial: bool,
    end_on_reboot: bool,
    topology: Topology,
    model: Option<String>,
    features: Vec<(String, bool)>,
    memory_mib: u64,
}

#[derive(Clone, Copy, Debug)]
struct Topology {
    sockets: u32,
    cores: u32,
    threads: u32,
}

impl Topology {
    fn total(self) -> u64 {
        // Saturating: what does not fit is refused anyway.
        u64::from(self.sockets)
            .saturating_mul(u64::from(self.cores))
            .saturating_mul(u64::from(self.threads))
    }
}

pub(super) fn compute(
    spec: &VirtualMachineInstanceSpec,
    at: &FieldPath,
    host: &Host,
    report: &mut Report,
) -> Compute {
    let domain = &spec.domain;
    if let Some(architecture) = spec.architecture.as_ref().filter(|name| *name != "amd64") {
        report.problem(
            &at.key("architecture"),
            ProblemKind::Invalid {
                value: architecture.clone(),
                expected: "an architecture that can run here (amd64)",
            },
        );
    }
    let at = at.key("domain");
    refuse_unsupported(domain, &at, report);
    let cpu = domain.cpu.clone().unwrap_or_default();
    let firmware = domain.firmware.as_ref();
    let bios = firmware.and_then(|firmware| firmware.bootloader.as_ref()?.bios.as_ref());
    Compute {
        machine: machine_type(domain, &at, report),
        bios_on_serial: bios.and_then(|bios| bios.use_serial) == Some(true),
        end_on_reboot: domain.reboot_policy == Some(RebootPolicy::Terminate),
        topology: topology(domain, &cpu, &at, host, report),
        model: model(&cpu, host.accelerator, &at, report),
        features: features(&cpu, &at, report),
        memory_mib: memory(domain, &at, report),
    }
}

/// Leaving these out would run the guest with less protection than it was promised, or not at all.
fn refuse_unsupported(domain: &Domain, at: &FieldPath, report: &mut Report) {
    let mut refuse = |path: FieldPath, what, remedy| {
        report.problem(&path, ProblemKind::Unsupported { what, remedy });
    };
    if domain.launch_security.is_some() {
        refuse(
            at.key("launchSecurity"),
            "encrypted guest memory",
            "remove the field to run without it",
        );
    }
    if domain
        .cpu
        .as_ref()
        .and_then(|cpu| cpu.dedicated_cpu_placement)
        == Some(true)
    {
        let path = at.key("cpu").key("dedicatedCpuPlacement");
        refuse(
            path,
            "dedicated processors",
            "remove the field to share processors",
        );
    }
    let Some(firmware) = &domain.firmware else {
        return;
    };
    let at = at.key("firmware");
    if firmware.kernel_boot.is_some() {
        refuse(
            at.key("kernelBoot"),
            "a kernel from a container image",
            "boot from a disk",
        );
    }
    let efi = firmware
        .bootloader
        .as_ref()
        .and_then(|bootloader| bootloader.efi.as_ref());
    if efi.is_some() {
        let path = at.key("bootloader").key("efi");
        refuse(path, "EFI firmware", "use an image that a BIOS can boot");
    }
}

fn machine_type(domain: &Domain, at: &FieldPath, report: &mut Report) -> String {
    let asked = domain
        .machine
        .as_ref()
        .and_then(|machine| machine.machine_type.as_deref());
    let name = asked.filter(|name| !name.is_empty()).unwrap_or("q35");
    let version = name.strip_prefix("pc-q35-");
    let is_version = version.is_some_and(|version| names::is_word(version, b"."));
    if name != "q35" && !is_version {
        report.problem(
            &at.key("machine").key("type"),
            ProblemKind::Invalid {
                value: name.to_owned(),
                expected: "a machine type that can run here (q35, or a version such as pc-q35-8.2)",
            },
        );
    }
    name.to_owned()
}

fn topology(
    domain: &Domain,
    cpu: &Cpu,
    at: &FieldPath,
    host: &Host,
    report: &mut Report,
) -> Topology {
    let written = cpu.sockets.is_some() || cpu.cores.is_some() || cpu.threads.is_some();
    // A cluster gives a machine without a topology as many sockets as its pod has processors.
    let from_resources = || {
        let cpus = resource(domain, "cpu", Limit::First)?.to_u64()?;
        u32::try_from(cpus).ok().map(|cpus| cpus.max(1))
    };
    let sockets = if written {
        cpu.sockets
    } else {
        from_resources()
    };
    let topology = Topology {
        sockets: sockets.unwrap_or(1),
        cores: cpu.cores.unwrap_or(1),
        threads: cpu.threads.unwrap_or(1),
    };
    let total = topology.total();
    let path = at.key("cpu");
    if total == 0 || total > MAX_CPUS {
        report.problem(
            &path,
            ProblemKind::Invalid {
                value: total.to_string(),
                expected: "a number of processors between 1 and 255",
            },
        );
    } else if total > u64::from(host.cpus) {
        let message = format!("{total} processors share the {} of this host", host.cpus);
        report.notice(&path, message);
    }
    topology
}

fn model(
    cpu: &Cpu,
    accelerator: Accelerator,
    at: &FieldPath,
    report: &mut Report,
) -> Option<String> {
    let path = at.key("cpu").key("model");
    match cpu.model.as_deref() {
        None | Some("" | "host-model") => None,
        Some("host-passthrough") => {
            if accelerator == Accelerator::Tcg {
                report.notice(
                    &path,
                    "without KVM the guest sees every feature that QEMU emulates",
                );
            }
            None
        }
        Some(model) => {
            if !names::is_word(model, b"-._") {
                report.problem(
                    &path,
                    ProblemKind::Invalid {
                        value: model.to_owned(),
                        expected: "the name of a processor model",
                    },
                );
            }
            Some(model.to_owned())
        }
    }
}

fn features(cpu: &Cpu, at: &FieldPath, report: &mut Report) -> Vec<(String, bool)> {
    let at = at.key("cpu").key("features");
    let mut features = Vec::new();
    for (index, feature) in cpu.features.iter().enumerate() {
        if !names::is_word(&feature.name, b"-._") {
            report.problem(
                &at.index(index).key("name"),
                ProblemKind::Invalid {
                    value: feature.name.clone(),
                    expected: "the name of a processor feature",
                },
            );
        }
        let on = match feature.policy {
            None
            | Some(
                CpuFeaturePolicy::Force | CpuFeaturePolicy::Require | CpuFeaturePolicy::Optional,
            ) => true,
            Some(CpuFeaturePolicy::Disable | CpuFeaturePolicy::Forbid) => false,
        };
        features.push((feature.name.clone(), on));
    }
    features
}

fn memory(domain: &Domain, at: &FieldPath, report: &mut Report) -> u64 {
    let written = domain.memory.as_ref();
    let guest = written.and_then(|memory| memory.guest.as_ref());
    if written.is_some_and(|memory| memory.hugepages.is_some()) {
        report.notice(
            &at.key("memory").key("hugepages"),
            "the guest's memory is on ordinary pages",
        );
    }
    check_limits(domain, at, report);
    let (amount, path) = match guest {
        Some(guest) => (Some(guest), at.key("memory").key("guest")),
        None => (resource(domain, "memory", Limit::Last), at.key("resources")),
    };
    let Some(amount) = amount else {
        report.problem(&at.key("memory").key("guest"), ProblemKind::NoMemory);
        return 0;
    };
    let bytes = amount.to_u64().unwrap_or(0);
    if bytes < MIN_MEMORY {
        report.problem(
            &path,
            ProblemKind::Invalid {
                value: amount.to_string(),
                expected: "an amount of memory of at least 1M",
            },
        );
    }
    bytes.div_ceil(MIB)
}

/// Requests, and what the guest sees, stay within the limits.
fn check_limits(domain: &Domain, at: &FieldPath, report: &mut Report) {
    let Some(resources) = &domain.resources else {
        return;
    };
    let requests = at.key("resources").key("requests");
    for (name, limit) in &resources.limits {
        if let Some(amount) = resources
            .requests
            .get(name)
            .filter(|amount| *amount > limit)
        {
            report.problem(&requests.key(name), above(amount, limit));
        }
    }
    let guest = domain
        .memory
        .as_ref()
        .and_then(|memory| memory.guest.as_ref());
    if let (Some(guest), Some(limit)) = (guest, resources.limits.get("memory"))
        && guest > limit
    {
        report.problem(&at.key("memory").key("guest"), above(guest, limit));
    }
}

fn above(amount: &Quantity, limit: &Quantity) -> ProblemKind {
    ProblemKind::AboveLimit {
        amount: amount.clone(),
        limit: limit.clone(),
    }
}

/// Whether a limit or a request speaks first.
#[derive(Clone, Copy)]
enum Limit {
    First,
    Last,
}

fn resource<'a>(domain: &'a Domain, name: &str, limit: Limit) -> Option<&'a Quantity> {
    let resources = domain.resources.as_ref()?;
    let (request, limited) = (resources.requests.get(name), resources.limits.get(name));
    match limit {
        Limit::First => limited.or(request),
        Limit::Last => request.or(limited),
    }
}

impl Compute {
    pub(super) fn arguments(&self, accelerator: Accelerator, argv: &mut Argv) {
        let Self {
            machine,
            bios_on_serial,
            end_on_reboot,
            topology,
            model,
            features,
            memory_mib,
        } = self;
        // SeaBIOS writes to the serial port when it believes that there is no graphics card.
        let graphics = if *bios_on_serial { ",graphics=off" } else { "" };
        argv.option(
            "-machine",
            format!("type={machine},usb=off,dump-guest-core=off{graphics}"),
        );
        let (accel, default_model) = match accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg,thread=multi", "max"),
        };
        argv.option("-accel", accel);
        let mut cpu = model.as_deref().unwrap_or(default_model).to_owned();
        for (name, on) in features {
            cpu.extend([",", name, if *on { "=on" } else { "=off" }]);
        }
        argv.option("-cpu", cpu);
        let Topology {
            sockets,
            cores,
            threads,
        } = topology;
        let total = topology.total();
        argv.option(
            "-smp",
            format!("cpus={total},sockets={sockets},cores={cores},threads={threads}"),
        );
        argv.option("-m", format!("size={memory_mib}M"));
        argv.option("-boot", "strict=on");
        if *end_on_reboot {
            argv.option("-action", "reboot=shutdown");
        }
    }
}
