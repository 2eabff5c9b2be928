//! Everybody else in the cluster: who binds claims, runs pods, collects garbage; and people.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use longshore_crds::names::{annotation, object, reason};
use serde_json::{Value, json};

use super::server::{
    Key, NAMESPACE, Server, Store, is_held, is_importer, key, noted, show, text, used_by,
};
use crate::context::Context;
use crate::health::Health;
use crate::import::line::Line;
use crate::import::pod::Workload;
use crate::import::users::Users;
use crate::known::Known;
use crate::settings::Settings;
use crate::troubles::Troubles;
use crate::written::Written;
use crate::{data_volume, import, populate};

const CLAIMS: &str = "persistentvolumeclaims";
const SOURCES: &str = "volumeimportsources";
const PERSISTENT: &str = "persistentvolumes";
const VOLUMES: &str = "datavolumes";
const MAPS: &str = "configmaps";
/// Who vouches for the proxy.
const AUTHORITIES: &str = "authorities";

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

/// A server at the beginning of time.
pub(super) fn begun(server: Server) -> Server {
    NOW.set(1_000_000_000);
    server.store().now = NOW.get();
    server
}

/// Time goes by.
pub(super) fn pass(server: &Server, seconds: i64) {
    NOW.set(NOW.get() + seconds);
    server.store().now = NOW.get();
}

/// What controllers share that know this of a cluster.
pub(super) fn context(client: Client, known: Known) -> Context {
    Context {
        client,
        settings: Settings {
            workload: Workload::default(),
            namespace: "cdi".to_owned(),
            identity: "model".to_owned(),
            health: None,
            metrics: None,
        },
        scraper: None,
        clock,
        known,
        health: Health::new(),
        line: Line::default(),
        // Nobody waits here: what is not shown is not.
        users: Arc::new(Users::new(Duration::ZERO)),
        pods: reflector::store().0,
        claims: reflector::store().0,
        troubles: Troubles::default(),
        written: Written::default(),
    }
}

/// What a volume is made with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Http,
    Blank,
    Immediate,
    Nonsense,
    Clone,
    /// Of a class with a driver.
    Driver,
    /// The same, and it binds late.
    DriverLate,
    /// Somebody insists.
    Populator,
    Adopting,
    Warm,
    /// The same of a class with a driver.
    WarmDriver,
}

/// How a pod goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Run,
    Crash,
    Complete,
    WrongChecksum,
    Evict,
    Gone,
}

/// Something that happens besides the controllers. Names are one of two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Volume(bool, Kind),
    DeleteVolume(bool),
    EditVolume(bool),
    /// Another checkpoint of a volume that has some.
    Checkpoint(bool),
    /// No more of them follow.
    LastCheckpoint(bool),
    /// A claim with annotations, and no volume.
    Claim(bool),
    /// A claim that names what fills it, and no volume.
    PopulatedClaim(bool),
    /// What it names is there, or is not.
    Source(bool),
    /// Somebody takes away what is filled in the place of a claim.
    DeletePrime(bool),
    /// A claim of that name, and nobody's.
    ForeignPrime(bool),
    /// A provisioner does not heed what a claim names.
    BindEagerly(bool),
    /// A claim that has nothing to do with any of this.
    ForeignClaim(bool),
    DeleteClaim(bool),
    /// The mark that says that a disk is complete is lost.
    Strip(bool),
    /// A machine that uses the claim.
    StartMachine(bool),
    StopMachine(bool),
    /// One that comes just before the next importer of the claim.
    Race(bool),
    /// A pod with the name of an importer, and nobody's.
    ForeignPod(bool),
    DeletePod(bool),
    Pod(bool, Turn),
    Quota(bool),
    Wait,
}

fn name(second: bool) -> &'static str {
    if second { "b" } else { "a" }
}

/// A cluster.
pub(super) struct World {
    pub(super) server: Server,
    context: Arc<Context>,
    /// What there was at each round: a watch may bring what is old.
    seen: Vec<Vec<(Key, Value)>>,
    /// The watch of the claims of volumes, and the round that it has shown last: it may be late, and goes
    /// forwards only.
    claims: Writer<PersistentVolumeClaim>,
    claims_shown: usize,
}

/// What a history begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beginning {
    Nothing,
    /// A volume at work.
    Importing,
    /// A volume that has succeeded.
    Filled,
    /// A claim without a volume that has.
    FilledClaim,
    /// A volume that has one checkpoint, and waits for the next.
    Paused,
    /// A volume whose claim a populator is at work on.
    Populating,
    /// One that is filled, and not yet handed over.
    Populated,
    /// One whose first checkpoint is copied, while the next is waited for.
    Resting,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&[], &json!({"trustedCAProxy": AUTHORITIES}))
    }

    /// One in which so many importers may be at work at a time.
    pub(super) fn limited(most: usize) -> Self {
        let limit = json!({"metadata": {
            "name": object::CDI, "annotations": {annotation::IMPORTS_PER_NODE: most.to_string()},
        }});
        let world = Self::with(&[("cdis", limit)], &json!({}));
        world.server.store().most = Some(most);
        world
    }

    /// `proxy`: the way to the sources.
    fn with(more: &[(&str, Value)], proxy: &Value) -> Self {
        let server = Server::default();
        let authorities = json!({"metadata": {"name": AUTHORITIES}, "data": {"ca.crt": "c"}});
        drop(server.store().create(MAPS, &authorities));
        let classes = [
            ("late", "p", "WaitForFirstConsumer"),
            ("now", "p", "Immediate"),
            ("driver", "d", "Immediate"),
            ("driver-late", "d", "WaitForFirstConsumer"),
        ]
        .map(|(name, provisioner, mode)| {
            let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
                "volumeBindingMode": mode});
            ("storageclasses", class)
        });
        let driver = ("csidrivers", json!({"metadata": {"name": "d"}, "spec": {}}));
        let config = json!({
            "metadata": {"name": object::CONFIG},
            "spec": {"featureGates": ["HonorWaitForFirstConsumer"]}, "status": {"importProxy": proxy},
        });
        let config = ("cdiconfigs", config);
        let known = Known::seen(
            classes
                .iter()
                .chain([&config, &driver])
                .chain(more)
                .map(|(kind, it)| (*kind, it)),
        );
        let mut context = context(server.client(), known);
        let claims = Writer::default();
        context.claims = claims.as_reader();
        server.store().shown.users = Some(Arc::clone(&context.users));
        context.pods = server.store().shown.importers.as_reader();
        Self {
            context: Arc::new(context),
            server: begun(server),
            seen: Vec::new(),
            claims,
            claims_shown: 0,
        }
    }

    /// Goes on from there: with `a`.
    pub(super) async fn begin(&mut self, beginning: Beginning) -> Option<()> {
        let volume = Step::Volume(false, Kind::Http);
        let steps: &[Step] = match beginning {
            Beginning::Nothing => &[],
            Beginning::Importing => &[volume, Step::Pod(false, Turn::Run)],
            Beginning::Filled => &[volume, Step::Pod(false, Turn::Complete)],
            Beginning::Paused => &[
                Step::Volume(false, Kind::Warm),
                Step::Pod(false, Turn::Complete),
            ],
            Beginning::Resting => &[
                Step::Volume(false, Kind::WarmDriver),
                Step::Pod(false, Turn::Complete),
            ],
            Beginning::Populating | Beginning::Populated => &[
                Step::Volume(false, Kind::Driver),
                Step::Pod(false, Turn::Run),
            ],
            Beginning::FilledClaim => &[Step::Claim(false), Step::Pod(false, Turn::Complete)],
        };
        for step in steps {
            self.step(*step);
            self.settle(true).await?;
        }
        if matches!(beginning, Beginning::Populated) {
            self.step(Step::Pod(false, Turn::Complete));
        }
        Some(())
    }

    /// One round of both controllers over all that there is, in this order or the other; or over what
    /// there was `lag` rounds ago, as a watch brings it that comes late.
    pub(super) async fn round(&mut self, claims_first: bool, lag: usize) {
        let fresh: Vec<(Key, Value)> = {
            let store = self.server.store();
            let known = store.objects.iter();
            known.map(|(key, it)| (key.clone(), it.clone())).collect()
        };
        self.seen.push(fresh);
        let at = self.seen.len().saturating_sub(lag + 1);
        let seen = self.seen.get(at).cloned().unwrap_or_default();
        self.claims_shown = self.claims_shown.max(at);
        let shown = self.seen[self.claims_shown].iter();
        let claims = shown.filter(|((kind, _), _)| kind == CLAIMS);
        let claims = claims.map(|(_, claim)| serde_json::from_value(claim.clone()).unwrap());
        show(&mut self.claims, claims);
        self.context.line.sees_all(&self.importers());
        {
            let mut store = self.server.store();
            store.shown.lags = lag > 0;
            store.show_pods();
        }
        let order = if claims_first {
            [CLAIMS, VOLUMES]
        } else {
            [VOLUMES, CLAIMS]
        };
        for plural in order {
            for ((kind, _), object) in &seen {
                if kind == plural {
                    self.reconcile(plural, object.clone()).await;
                }
            }
        }
    }

    /// What a watch of importers brings.
    fn importers(&self) -> Vec<Pod> {
        let pods = self.server.store().of("pods");
        pods.into_iter()
            .filter(|(_, pod)| is_importer(pod))
            .map(|(_, pod)| serde_json::from_value(pod).unwrap())
            .collect()
    }

    /// Lets every import end well, one after the other. `None` if there is no end of it.
    pub(super) async fn complete(&mut self) -> Option<()> {
        for _ in 0..8 {
            for at in [false, true] {
                self.step(Step::StopMachine(at));
                self.step(Step::Quota(false));
                self.step(Step::Pod(at, Turn::Complete));
                self.settle(true).await?;
            }
        }
        Some(())
    }

    /// Claims that say that it is not their turn.
    pub(super) fn queued(&self) -> usize {
        let claims = self.server.store().of(CLAIMS);
        let queued = claims.iter().filter(|(_, claim)| {
            noted(claim, annotation::RUNNING_REASON) == Some(reason::IMPORT_QUEUED)
        });
        queued.count()
    }

    /// A failed round is made again, as the queue would; here by whoever calls.
    async fn reconcile(&self, plural: &str, object: Value) {
        let context = Arc::clone(&self.context);
        if plural == CLAIMS {
            let claim = Arc::new(serde_json::from_value(object).unwrap());
            drop(Box::pin(import::reconcile(Arc::clone(&claim), Arc::clone(&context))).await);
            drop(Box::pin(populate::reconcile(claim, context, &self.context.claims)).await);
        } else {
            let mut object = object;
            object["apiVersion"] = json!("cdi.kubevirt.io/v1beta1");
            object["kind"] = json!("DataVolume");
            let volume = serde_json::from_value(object).unwrap();
            drop(Box::pin(data_volume::reconcile(Arc::new(volume), context)).await);
        }
    }

    /// A controller that dies before its write number `life`, wherever it is then.
    pub(super) async fn killed_round(&mut self, claims_first: bool, life: u32) {
        self.server.store().life = Some(life);
        self.round(claims_first, 0).await;
        self.server.store().life = None;
    }

    /// Lets everybody work until nothing changes any more, even as time goes by. `None` if that never is.
    pub(super) async fn settle(&mut self, claims_first: bool) -> Option<()> {
        let mut quiet = 0;
        for _ in 0..60 {
            let before = self.server.store().version;
            self.round(claims_first, 0).await;
            self.housekeeping();
            if self.server.store().version == before {
                quiet += 1;
                pass(&self.server, 40);
            } else {
                quiet = 0;
            }
            if quiet == 2 {
                return Some(());
            }
        }
        None
    }

    /// Binder, pvc-protection, collector of garbage, and the kubelet's part in deletions.
    pub(super) fn housekeeping(&self) {
        let mut store = self.server.store();
        loop {
            let before = store.version;
            store.end_pods();
            store.collect();
            store.release_claims();
            store.bind();
            if store.version == before {
                return;
            }
        }
    }

    pub(super) fn step(&self, step: Step) {
        let mut store = self.server.store();
        match step {
            Step::Volume(at, kind) => {
                drop(store.create(VOLUMES, &volume(name(at), kind)));
            }
            Step::DeleteVolume(at) => store.remove(&key(VOLUMES, name(at)), false),
            Step::EditVolume(at) => store.change(&key(VOLUMES, name(at)), |volume| {
                volume["spec"]["priorityClassName"] = json!("high");
            }),
            Step::Checkpoint(at) => store.change(&key(VOLUMES, name(at)), |volume| {
                if let Some(list) = volume["spec"]["checkpoints"].as_array_mut() {
                    let (last, next) = (list.len(), list.len() + 1);
                    list.push(
                        json!({"previous": format!("c{last}"), "current": format!("c{next}")}),
                    );
                }
            }),
            Step::LastCheckpoint(at) => store.change(&key(VOLUMES, name(at)), |volume| {
                if volume["spec"]["checkpoints"].is_array() {
                    volume["spec"]["finalCheckpoint"] = json!(true);
                }
            }),
            Step::Claim(at) => {
                let asks = json!({annotation::IMPORT_ENDPOINT: "https://h/disk"});
                drop(store.create(CLAIMS, &claim(name(at), &asks)));
            }
            Step::ForeignClaim(at) => {
                drop(store.create(CLAIMS, &claim(name(at), &json!({"keep": "me"}))));
            }
            Step::PopulatedClaim(at) => {
                let mut claim = claim(name(at), &json!({}));
                claim["spec"]["storageClassName"] = json!("driver");
                claim["spec"]["dataSourceRef"] = json!({"apiGroup": "cdi.kubevirt.io",
                    "kind": "VolumeImportSource", "name": "source"});
                drop(store.create(CLAIMS, &claim));
            }
            Step::Source(true) => {
                let source = json!({"metadata": {"name": "source"},
                    "spec": {"source": {"http": {"url": "https://h/disk"}}}});
                drop(store.create(SOURCES, &source));
            }
            Step::Source(false) => store.remove(&key(SOURCES, "source"), false),
            Step::DeletePrime(at) => {
                if let Some(prime) = store.prime(name(at)) {
                    store.remove(&key(CLAIMS, &prime), false);
                }
            }
            Step::ForeignPrime(at) => {
                if let Some(prime) = store.prime(name(at)) {
                    drop(store.create(CLAIMS, &claim(&prime, &json!({"keep": "me"}))));
                }
            }
            Step::BindEagerly(at) => store.provision(&key(CLAIMS, name(at))),
            Step::DeleteClaim(at) => store.remove(&key(CLAIMS, name(at)), false),
            Step::Strip(at) => store.change(&key(CLAIMS, name(at)), |claim| {
                if let Some(all) = claim["metadata"]["annotations"].as_object_mut() {
                    all.remove(annotation::POD_PHASE);
                }
            }),
            Step::StartMachine(at) => {
                drop(store.create("pods", &machine(name(at))));
            }
            Step::Race(at) => store.intrusion = Some(name(at).to_owned()),
            Step::StopMachine(at) => {
                store.remove(&key("pods", &format!("vm-{}", name(at))), true);
            }
            Step::ForeignPod(at) => {
                let pod = json!({
                    "metadata": {"name": object::importer(name(at))}, "spec": {"containers": []},
                });
                drop(store.create("pods", &pod));
            }
            Step::DeletePod(at) => {
                let pod = store.importer(name(at));
                store.overlook(&pod);
                store.remove(&key("pods", &pod), false);
            }
            Step::Pod(at, turn) => {
                let pod = store.importer(name(at));
                store.turn(&pod, turn);
            }
            Step::Quota(used_up) => store.quota_is_used_up = used_up,
            Step::Wait => {
                drop(store);
                pass(&self.server, 40);
            }
        }
    }

    /// What was told of ends: these must not be lost.
    pub(super) fn ends_told(&self) -> Vec<String> {
        let store = self.server.store();
        let events = store
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == "events");
        events
            .filter(|(_, event)| {
                let ends = [
                    "ImportSucceeded",
                    "ImportFailed",
                    "ErrImportFailed",
                    "ImportTargetInUse",
                    "importSucceeded",
                ];
                ends.contains(&text(event, "/reason"))
            })
            .map(|(_, event)| {
                let about = text(event, "/involvedObject/uid");
                format!(
                    "{about} {} {}",
                    text(event, "/reason"),
                    text(event, "/message")
                )
            })
            .collect()
    }
}

impl Store {
    pub(super) fn change(&mut self, key: &Key, how: impl FnOnce(&mut Value)) {
        if let Some(known) = self.objects.get(key) {
            let mut next = known.clone();
            how(&mut next);
            if next != *known {
                self.put(key.clone(), next);
            }
        }
    }

    fn of(&self, plural: &str) -> Vec<(Key, Value)> {
        let all = self.objects.iter().filter(|((kind, _), _)| kind == plural);
        all.map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// Pods that were to end have.
    fn end_pods(&mut self) {
        for (key, pod) in self.of("pods") {
            if !text(&pod, "/metadata/deletionTimestamp").is_empty() {
                self.overlook(&key.1);
                self.remove(&key, true);
            }
        }
    }

    /// What nobody owns any more goes.
    fn collect(&mut self) {
        for (key, volume) in self.of(PERSISTENT) {
            let holder = text(&volume, "/spec/claimRef/uid");
            let mut all = self.objects.values();
            if !all.any(|it| text(it, "/metadata/uid") == holder) {
                self.remove(&key, false);
            }
        }
        for plural in [CLAIMS, SOURCES, "pods", MAPS] {
            for (key, object) in self.of(plural) {
                let owners = object["metadata"]["ownerReferences"].as_array().cloned();
                let owners = owners.unwrap_or_default();
                let gone = !owners.is_empty()
                    && owners.iter().all(|owner| {
                        let mut all = self.objects.values();
                        !all.any(|it| text(it, "/metadata/uid") == text(owner, "/uid"))
                    });
                if gone {
                    self.remove(&key, false);
                }
            }
        }
    }

    /// Claims that were to go, and that no pod uses, have.
    fn release_claims(&mut self) {
        let pods = self.of("pods");
        for (key, claim) in self.of(CLAIMS) {
            let ends = !text(&claim, "/metadata/deletionTimestamp").is_empty();
            if ends
                && !pods
                    .iter()
                    .any(|(_, pod)| used_by(pod).contains(&key.1.as_str()))
            {
                self.version += 1;
                self.objects.remove(&key);
            }
        }
    }

    fn bind(&mut self) {
        let pods = self.of("pods");
        for (key, claim) in self.of(CLAIMS) {
            let late = text(&claim, "/spec/storageClassName").ends_with("late");
            let used = pods
                .iter()
                .any(|(_, pod)| used_by(pod).contains(&key.1.as_str()));
            let has_node = noted(&claim, annotation::SELECTED_NODE).is_some();
            let waits = text(&claim, "/status/phase") == "Pending";
            if waits && late && used && !has_node {
                // The scheduler's word, for whoever makes the volume.
                self.change(&key, |claim| {
                    claim["metadata"]["annotations"][annotation::SELECTED_NODE] = json!("node");
                });
            }
            let populated = claim["spec"]["dataSourceRef"].is_object();
            if waits && !populated && (!late || used || has_node) {
                self.provision(&key);
            }
        }
        // Whose a volume is says which claim has it.
        let volumes = self.of(PERSISTENT);
        for (key, claim) in self.of(CLAIMS) {
            let uid = text(&claim, "/metadata/uid");
            let mut volumes = volumes.iter();
            let has = volumes.find(|(_, volume)| text(volume, "/spec/claimRef/uid") == uid);
            match (text(&claim, "/status/phase"), has) {
                ("Pending", Some((volume, _))) => self.change(&key, |claim| {
                    claim["spec"]["volumeName"] = json!(volume.1);
                    claim["status"]["phase"] = json!("Bound");
                }),
                ("Bound", None) => {
                    self.change(&key, |claim| claim["status"]["phase"] = json!("Lost"));
                }
                _ => {}
            }
        }
    }

    /// Makes a volume for a claim that has none.
    fn provision(&mut self, claim: &Key) {
        let Some(known) = self.objects.get(claim) else {
            return;
        };
        let uid = text(known, "/metadata/uid").to_owned();
        if text(known, "/status/phase") != "Pending"
            || self
                .of(PERSISTENT)
                .iter()
                .any(|(_, it)| text(it, "/spec/claimRef/uid") == uid)
        {
            return;
        }
        let volume = json!({
            "metadata": {"name": format!("pv-{uid}")},
            "spec": {"claimRef": {"name": claim.1, "uid": uid}},
        });
        drop(self.create(PERSISTENT, &volume));
    }

    /// Name of the claim that is filled in the place of another one.
    fn prime(&self, claim: &str) -> Option<String> {
        let claim = self.objects.get(&key(CLAIMS, claim))?;
        let populated = claim["spec"]["dataSourceRef"].is_object();
        populated.then(|| object::prime(text(claim, "/metadata/uid")))
    }

    /// The pod that works on a claim; of several the one that has not ended.
    fn importer(&self, claim: &str) -> String {
        let prime = self.prime(claim);
        let plain = object::importer(prime.as_deref().unwrap_or(claim));
        let staged = format!("{plain}-checkpoint-");
        let mut known = self.of("pods");
        known.retain(|(key, pod)| {
            key.1.starts_with(&staged)
                && !["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
        });
        known.pop().map_or(plain, |(key, _)| key.1)
    }

    /// Of a pod that has ended well and is taken away before anybody noted that, nobody knows any more.
    fn overlook(&mut self, pod: &str) {
        let Some(pod) = self.objects.get(&key("pods", pod)) else {
            return;
        };
        let uid = text(pod, "/metadata/ownerReferences/0/uid").to_owned();
        let noted_done = |(_, claim): &(Key, Value)| {
            text(claim, "/metadata/uid") == uid
                && noted(claim, annotation::POD_PHASE) == Some("Succeeded")
        };
        let ended = text(pod, "/status/phase") == "Succeeded";
        if ended && !self.of(CLAIMS).iter().any(noted_done) {
            self.overlooked.insert(uid);
        }
    }

    /// A kubelet's word about an importer that it runs.
    fn turn(&mut self, pod: &str, turn: Turn) {
        let key = key("pods", pod);
        let Some(known) = self.objects.get(&key).cloned() else {
            return;
        };
        let phase = text(&known, "/status/phase");
        if ["Succeeded", "Failed"].contains(&phase) || is_held(&known) {
            return;
        }
        let restarts = known.pointer("/status/containerStatuses/0/restartCount");
        let restarts = restarts.and_then(Value::as_u64).unwrap_or(0);
        let container = |restarts: u64, state: Value, last: Value| {
            json!([{"name": "importer", "image": "i", "imageID": "", "ready": true,
                "restartCount": restarts, "state": state, "lastState": last}])
        };
        let ended = |code: i32, message: &Value| json!({"terminated": {"exitCode": code, "message": message.to_string()}});
        let status = match turn {
            Turn::Run => json!({"phase": "Running",
                "containerStatuses": container(restarts, json!({"running": {}}), json!({}))}),
            Turn::Crash => {
                let last = ended(1, &json!({"message": "h answered 503"}));
                let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
                json!({"phase": "Running", "containerStatuses": container(restarts + 1, waits, last)})
            }
            Turn::Complete => {
                let uid = text(&known, "/metadata/ownerReferences/0/uid").to_owned();
                if let Some(checkpoint) = noted(&known, annotation::CHECKPOINT) {
                    let stages = self.stages.entry(uid).or_default();
                    stages.push(checkpoint.to_owned());
                } else {
                    self.filled.insert(uid);
                }
                let state = ended(0, &json!({"message": "Import Complete"}));
                json!({"phase": "Succeeded", "containerStatuses": container(restarts, state, json!({}))})
            }
            Turn::WrongChecksum => {
                let end = json!({"message": "wrong", "reason": "ChecksumMismatch"});
                json!({"phase": "Succeeded",
                    "containerStatuses": container(restarts, ended(0, &end), json!({}))})
            }
            Turn::Evict => {
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
            }
            Turn::Gone => {
                let state = json!({"running": {}});
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                    "containerStatuses": container(restarts, state, json!({}))})
            }
        };
        self.change(&key, |pod| pod["status"] = status);
    }
}

/// A pod that uses a claim.
pub(super) fn machine(claim: &str) -> Value {
    let mounts = json!([{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]);
    json!({
        "metadata": {"name": format!("vm-{claim}")},
        "spec": {"containers": [], "volumes": mounts},
    })
}

fn claim(name: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "storageClassName": "now", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

fn volume(name: &str, kind: Kind) -> Value {
    let http = json!({"http": {"url": "https://h/disk"}});
    let imageio = json!({"imageio": {"url": "https://e/api", "diskId": "d", "secretRef": "s",
        "insecureSkipVerify": true}});
    let (source, class, annotations) = match kind {
        Kind::Http | Kind::Nonsense => (http, "now", json!({})),
        Kind::Blank => (json!({"blank": {}}), "late", json!({})),
        Kind::Immediate => (http, "late", json!({annotation::BIND_IMMEDIATE: ""})),
        Kind::Clone => (
            json!({"pvc": {"namespace": "n", "name": "c"}}),
            "now",
            json!({}),
        ),
        Kind::Driver => (http, "driver", json!({})),
        Kind::DriverLate => (http, "driver-late", json!({})),
        Kind::Populator => (http, "now", json!({annotation::USE_POPULATOR: "true"})),
        Kind::Warm => (imageio, "now", json!({})),
        Kind::WarmDriver => (imageio, "driver", json!({})),
        Kind::Adopting => (http, "now", json!({annotation::ALLOW_ADOPTION: "true"})),
    };
    let size = if matches!(kind, Kind::Nonsense) {
        "1"
    } else {
        "1Gi"
    };
    let mut volume = json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"source": source, "pvc": {
            "storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }},
    });
    if matches!(kind, Kind::Warm | Kind::WarmDriver) {
        volume["spec"]["checkpoints"] = json!([{"previous": "", "current": "c1"}]);
    }
    volume
}
