//! What the cluster is made of: installations, the configuration, classes and their profiles; and people
//! who change all of it, and another operator that comes and goes.

mod people;
mod properties;

use kube::Client;
use longshore_crds::names::{annotation, object};
use serde_json::{Value, json};

use self::people::Step;
use super::server::{Key, NAMESPACE, Server, key, noted, text};
use super::world::{begun, context, pass};
use crate::health::Health;
use crate::known::Known;
use crate::lease::{Elector, Holder};
use crate::{cdi, cdi_config, storage_profile};

/// A round of the controllers: in which order they come, over what was known how many rounds ago.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    order: usize,
    lag: usize,
    /// Whether it is seen at once that somebody else is here.
    unaware: bool,
}

/// A cluster and the process of the controllers.
struct World {
    server: Server,
    client: Client,
    elector: Elector,
    works: bool,
    /// What there was at each round.
    seen: Vec<Vec<(Key, Value)>>,
}

impl World {
    fn new() -> Self {
        let server = begun(Server::default());
        let client = server.client();
        Self {
            elector: elector(&client),
            server,
            client,
            works: false,
            seen: Vec::new(),
        }
    }

    /// Whether somebody else looks after the cluster.
    fn is_others(&self) -> bool {
        let store = self.server.store();
        let operator = store.objects.get(&key("deployments", object::OPERATOR));
        let lease = store.objects.get(&key("leases", object::LEASE));
        operator.is_some_and(|it| it["spec"]["replicas"] != json!(0))
            || lease.is_some_and(|it| text(it, "/spec/holderIdentity") == "upstream")
    }

    async fn round(&mut self, round: Round) {
        let fresh: Vec<(Key, Value)> = {
            let store = self.server.store();
            let known = store.objects.iter();
            known.map(|(key, it)| (key.clone(), it.clone())).collect()
        };
        self.seen.push(fresh);
        let at = self.seen.len().saturating_sub(round.lag + 1);
        let seen = self.seen.get(at).cloned().unwrap_or_default();
        let unaware = round.unaware && self.works;
        {
            let is_others = self.is_others() && !unaware;
            let mut store = self.server.store();
            store.is_others = is_others;
            store.seen_fresh = round.lag == 0;
        }
        if !unaware {
            self.look().await;
        }
        if !self.works {
            return;
        }
        let objects = seen.iter();
        let known = Known::seen(objects.map(|((plural, _), object)| (plural.as_str(), object)));
        let context = context(self.client.clone(), known);
        // One that failed is made again, as the loop around it would; here by whoever calls.
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for which in orders[round.order % orders.len()] {
            drop(match which {
                0 => cdi::pass(&context).await,
                1 => cdi_config::pass(&context).await,
                _ => storage_profile::pass(&context).await,
            });
        }
    }

    /// What the process waits for besides its work: a foreign operator, and the end of its lease. Each
    /// ends it, and it is started again.
    async fn look(&mut self) {
        if self.works {
            let operator = cdi::foreign::operator(&self.client).await;
            if operator.is_ok_and(|operator| operator.is_some()) {
                self.elector.release().await;
                self.works = false;
            } else {
                self.works = matches!(self.elector.attempt().await, Ok(Holder::Us));
            }
        }
        if !self.works {
            let health = Health::new();
            self.works = crate::may_work(&self.client, &mut self.elector, &health).await;
        }
    }

    /// A process that dies before its write number `life`, wherever it is then, and another one after it.
    async fn killed_round(&mut self, order: usize, life: u32) {
        self.server.store().life = Some(life);
        self.round(Round {
            order,
            ..Round::default()
        })
        .await;
        self.server.store().life = None;
        self.works = false;
        self.elector = elector(&self.client);
    }

    /// Lets everybody work until nothing changes any more. `None` if that never is.
    async fn settle(&mut self, order: usize) -> Option<()> {
        let mut quiet = 0;
        for _ in 0..40 {
            let before = self.server.store().version;
            self.round(Round {
                order,
                ..Round::default()
            })
            .await;
            if self.server.store().version == before {
                quiet += 1;
            } else {
                quiet = 0;
            }
            pass(&self.server, 10);
            if quiet == 2 {
                return Some(());
            }
        }
        None
    }

    fn step(&self, step: Step) {
        self.server.store().step(step);
    }

    /// What in a cluster at rest is not as people were told that it would be.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let is_others = self.is_others();
        let store = self.server.store();
        let of = |plural: &str| -> Vec<(&str, &Value)> {
            let all = store.objects.iter().filter(|((kind, _), _)| kind == plural);
            all.map(|((_, name), object)| (name.as_str(), object))
                .collect()
        };
        let installations = of("cdis");
        for (name, cdi) in &installations {
            if says(cdi, "LongshorePassive") != is_others {
                wrong.push(format!(
                    "CDI {name} does not tell who is at work: {}",
                    cdi["status"]
                ));
            }
        }
        if is_others {
            return wrong;
        }
        let working = installations.iter().map(|(_, cdi)| *cdi);
        let working: Vec<&Value> = working.filter(|cdi| says(cdi, "Available")).collect();
        match (installations.len(), working.len()) {
            (0, _) => wrong.push("there is no CDI".to_owned()),
            (_, 0) => wrong.push("no CDI is in force".to_owned()),
            _ => {
                let config = store.objects.get(&key("cdiconfigs", object::CONFIG));
                let config = config.cloned().unwrap_or_default();
                // One that is to go is given no authority any more, and those that go are all at work.
                let heard = working.iter().any(|cdi| {
                    let wanted = cdi["spec"].get("config").cloned();
                    noted(cdi, annotation::CONFIG_AUTHORITY).is_none()
                        || config["spec"] == wanted.unwrap_or_else(|| json!({}))
                });
                if !heard {
                    wrong.push(format!("the configuration is nobody's: {config}"));
                }
                let overhead = &config["status"]["filesystemOverhead"]["storageClass"];
                let told = overhead.as_object().map_or(0, serde_json::Map::len);
                if told != of("storageclasses").len() {
                    wrong.push(format!("the configuration knows other classes: {overhead}"));
                }
            }
        }
        let names = |plural| {
            of(plural)
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        if names("storageclasses") != names("storageprofiles") {
            wrong.push(format!("there are profiles {:?}", names("storageprofiles")));
        }
        for (name, profile) in of("storageprofiles") {
            let sets = &profile["spec"]["claimPropertySets"];
            let status = &profile["status"];
            let heard = sets.is_null() || *sets == status["claimPropertySets"];
            if text(status, "/storageClass") != name || !heard {
                wrong.push(format!("profile {name} tells {status}"));
            }
        }
        wrong
    }
}

fn elector(client: &Client) -> Elector {
    Elector::new(client.clone(), NAMESPACE, "controller".to_owned())
}

/// Whether a condition is true.
fn says(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        let mut all = all.iter();
        all.any(|it| it["type"] == json!(kind) && it["status"] == json!("True"))
    })
}
