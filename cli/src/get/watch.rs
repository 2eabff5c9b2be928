//! Follows data volumes and the annotations of their claims.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use tokio::time::Instant;

use super::rows::{Claims, Key, Row, Table, Volumes, key, rows};
use super::screen::Screen;
use super::{ClaimMeta, Get, NO_CLAIMS, refused};
use crate::cluster::{Hidden, hidden};
use crate::failure::Failure;
use crate::output::{Data, say};

/// A picture is drawn no more often than this, and where ages are shown no less often than each second.
const FRAME: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_secs(1);

/// Runs until somebody ends it, or nobody reads any more.
pub(super) async fn run(
    get: &Get,
    place: Option<&str>,
    volumes: Api<DynamicObject>,
    claims: Api<ClaimMeta>,
) -> Result<(), Failure> {
    // A watch tries for ever; whoever may not, or has no cluster, shall hear of it.
    let first = kube::api::ListParams::default().limit(1);
    let answer = volumes.list_metadata(&first).await;
    answer.map_err(|error| refused(&error, place))?;
    let may_read_claims = match claims.list(&first).await {
        Ok(_) => true,
        Err(error) if hidden(&error) == Hidden::Forbidden => {
            say(NO_CLAIMS);
            false
        }
        Err(error) => return Err(refused(&error, place)),
    };
    let config = watcher::Config::default;
    let mut volume_events = pin!(watch_objects(volumes, config()).default_backoff());
    let mut claim_events = pin!(watch_objects(claims, config()).default_backoff());
    let mut picture = Picture::new(get, place.is_none());
    let mut ticks = tokio::time::interval(TICK);
    let mut next = Instant::now();
    loop {
        tokio::select! {
            Some(event) = volume_events.next() => match event {
                Ok(event) => picture.volume(event),
                Err(error) => tell(&error),
            },
            Some(event) = claim_events.next(), if may_read_claims => match event {
                Ok(event) => picture.claim(event),
                Err(error) => tell(&error),
            },
            _ = ticks.tick() => picture.changed |= matches!(picture.shown, Shown::Screen(_)),
            () = tokio::time::sleep_until(next), if picture.changed && picture.complete => {
                picture.draw()?;
                next = Instant::now() + FRAME;
            }
        }
    }
}

/// The watch goes on by itself.
fn tell(error: &watcher::Error) {
    say(&format!(
        "the cluster could not be watched, which is tried again: {}",
        longshore_telemetry::error_chain(error)
    ));
}

struct Picture<'a> {
    get: &'a Get,
    everywhere: bool,
    volumes: Volumes,
    /// Those of a list that is not complete yet.
    listing: Volumes,
    claims: Claims,
    claims_listing: Claims,
    /// All volumes were seen once.
    complete: bool,
    changed: bool,
    shown: Shown,
}

/// Where it goes.
enum Shown {
    /// A terminal.
    Screen(Screen),
    /// Elsewhere: what was printed last of each, and whether the names of the columns were.
    Lines {
        printed: BTreeMap<Key, String>,
        headed: bool,
    },
}

impl<'a> Picture<'a> {
    fn new(get: &'a Get, everywhere: bool) -> Self {
        let drawn = !get.json && io::stdout().is_terminal();
        Self {
            get,
            everywhere,
            volumes: Volumes::default(),
            listing: Volumes::default(),
            claims: Claims::default(),
            claims_listing: Claims::default(),
            complete: false,
            changed: false,
            shown: if drawn {
                Shown::Screen(Screen::default())
            } else {
                Shown::Lines {
                    printed: BTreeMap::new(),
                    headed: false,
                }
            },
        }
    }

    fn volume(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listing = Volumes::default(),
            Event::InitApply(object) => {
                self.listing.0.insert(key(&object.metadata), object);
                return;
            }
            Event::InitDone => {
                self.volumes = std::mem::take(&mut self.listing);
                self.complete = true;
            }
            Event::Apply(object) => {
                self.volumes.0.insert(key(&object.metadata), object);
            }
            Event::Delete(object) => {
                let key = key(&object.metadata);
                self.volumes.0.remove(&key);
                if let Shown::Lines { printed, .. } = &mut self.shown {
                    printed.remove(&key);
                }
            }
        }
        self.changed = true;
    }

    fn claim(&mut self, event: Event<ClaimMeta>) {
        match event {
            Event::Init => self.claims_listing = Claims::default(),
            Event::InitApply(claim) => {
                self.claims_listing.add(&claim.metadata);
                return;
            }
            Event::InitDone => self.claims = std::mem::take(&mut self.claims_listing),
            Event::Apply(claim) => self.claims.add(&claim.metadata),
            Event::Delete(claim) => {
                self.claims.0.remove(&key(&claim.metadata));
            }
        }
        self.changed = true;
    }

    fn draw(&mut self) -> Result<(), Failure> {
        self.changed = false;
        let names = &self.get.names;
        let mut rows = rows(&self.volumes, &self.claims);
        rows.retain(|row| names.is_empty() || names.contains(&row.name));
        match &mut self.shown {
            Shown::Screen(screen) => screen.draw(rows, self.everywhere),
            Shown::Lines { printed, headed } => {
                let fresh = news(rows, printed);
                if self.get.json {
                    return lines_of_json(&fresh);
                }
                let table = Table::new(fresh, self.everywhere);
                let mut lines = table.lines();
                if lines.len() < 2 {
                    return Ok(());
                }
                if std::mem::replace(headed, true) {
                    lines.remove(0);
                }
                let mut data = Data::open();
                for line in &lines {
                    data.line(line)?;
                }
                data.finish()
            }
        }
    }
}

/// Rows that are not what was printed last.
fn news(rows: Vec<Row>, printed: &mut BTreeMap<Key, String>) -> Vec<Row> {
    let mut rows = rows;
    rows.retain(|row| {
        let news = row.news();
        let key = (row.namespace.clone(), row.name.clone());
        printed.insert(key, news.clone()) != Some(news)
    });
    rows
}

fn lines_of_json(rows: &[Row]) -> Result<(), Failure> {
    let mut data = Data::open();
    for row in rows {
        data.json(row)?;
        data.line("")?;
    }
    data.finish()
}
