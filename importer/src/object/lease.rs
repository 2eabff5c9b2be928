//! Papers that run out: kept while they are good, got anew before they are not, by one request at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

use crate::http::error::HttpError;
use crate::http::passport::Pending;

/// Papers are renewed this long before they run out, or in the last quarter of a short life.
const MARGIN: Duration = Duration::from_mins(5);
/// Pause between attempts to renew what is good for a while yet.
const PAUSE: Duration = Duration::from_secs(15);

/// Papers, and when they run out, if they do.
#[derive(Debug)]
pub(crate) struct Issued<T> {
    pub(crate) papers: T,
    pub(crate) until: Option<SystemTime>,
}

/// Where papers are had.
pub(crate) trait Issuer: Send + Sync + fmt::Debug {
    type Papers: fmt::Debug + PartialEq + Send + Sync;

    /// New ones, with as many attempts as are worth it.
    fn issue(&self) -> Pending<'_, Issued<Self::Papers>>;
}

/// Papers of one issuer.
#[derive(Debug)]
pub(crate) struct Lease<T> {
    issuer: Box<dyn Issuer<Papers = T>>,
    held: Mutex<Option<Held<T>>>,
}

#[derive(Debug)]
struct Held<T> {
    papers: Arc<T>,
    until: Option<SystemTime>,
    renew_at: Option<SystemTime>,
    /// No attempt to renew before this.
    not_before: Option<Instant>,
}

impl<T> Held<T> {
    fn new(issued: Issued<T>, now: SystemTime) -> Self {
        let renew_at = issued.until.map(|until| {
            let life = until.duration_since(now).unwrap_or_default();
            until.checked_sub(MARGIN.min(life / 4)).unwrap_or(now)
        });
        Self {
            papers: Arc::new(issued.papers),
            until: issued.until,
            renew_at,
            not_before: None,
        }
    }

    /// Good, and not to be renewed yet.
    fn is_fresh(&self, now: SystemTime) -> bool {
        self.renew_at.is_none_or(|at| now < at)
            || (self.is_good(now) && self.not_before.is_some_and(|at| Instant::now() < at))
    }

    fn is_good(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl<T: fmt::Debug + PartialEq + Send + Sync + 'static> Lease<T> {
    pub(crate) fn new(issuer: impl Issuer<Papers = T> + 'static) -> Self {
        Self {
            issuer: Box::new(issuer),
            held: Mutex::new(None),
        }
    }

    /// Papers that are good now. Whoever comes while they are being got waits for the same ones.
    pub(crate) async fn papers(&self) -> Result<Arc<T>, HttpError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| held.is_fresh(now)) {
            return Ok(Arc::clone(&held.papers));
        }
        match self.issuer.issue().await {
            Ok(issued) => {
                let new = held.insert(Held::new(issued, SystemTime::now()));
                Ok(Arc::clone(&new.papers))
            }
            Err(error) => match held.as_mut().filter(|held| held.is_good(SystemTime::now())) {
                Some(held) => {
                    tracing::warn!(
                        cause = &error as &dyn std::error::Error,
                        "could not renew what is shown to the store, and will try again"
                    );
                    held.not_before = Instant::now().checked_add(PAUSE);
                    Ok(Arc::clone(&held.papers))
                }
                None => Err(error),
            },
        }
    }

    /// The papers that `were_refused` knows were not accepted. True if there are other ones now.
    pub(crate) async fn renew(
        &self,
        were_refused: impl Fn(&T) -> bool + Send,
    ) -> Result<bool, HttpError> {
        let mut held = self.held.lock().await;
        if held
            .as_ref()
            .is_some_and(|held| !were_refused(&held.papers))
        {
            // Somebody else was here first.
            return Ok(true);
        }
        let issued = self.issuer.issue().await?;
        let other = held
            .as_ref()
            .is_none_or(|held| *held.papers != issued.papers);
        *held = Some(Held::new(issued, SystemTime::now()));
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::http::error::Retry;

    /// Issues 1, 2, 3 with a life of so many seconds, and fails from the limit on.
    #[derive(Debug)]
    struct Counting {
        count: Arc<AtomicU32>,
        life: Option<u64>,
        limit: u32,
    }

    impl Issuer for Counting {
        type Papers = u32;

        fn issue(&self) -> Pending<'_, Issued<u32>> {
            Box::pin(async {
                let papers = self.count.fetch_add(1, Ordering::SeqCst) + 1;
                if papers > self.limit {
                    return Err(HttpError::Papers {
                        what: "more".to_owned(),
                        retry: Retry::Transient,
                        source: "none left".into(),
                    });
                }
                let life = self.life.map(Duration::from_secs);
                Ok(Issued {
                    papers,
                    until: life.map(|life| SystemTime::now() + life),
                })
            })
        }
    }

    fn lease(life: Option<u64>, limit: u32) -> (Lease<u32>, Arc<AtomicU32>) {
        let count = Arc::default();
        let issuer = Counting {
            count: Arc::clone(&count),
            life,
            limit,
        };
        (Lease::new(issuer), count)
    }

    fn wait<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn good_papers_are_kept_and_bad_ones_replaced_once() {
        let (lease, count) = lease(Some(3600), 9);
        wait(async {
            assert_eq!(*lease.papers().await.unwrap(), 1);
            assert_eq!(*lease.papers().await.unwrap(), 1);
            assert!(lease.renew(|&old| old == 1).await.unwrap());
            // The second who was refused with the same ones.
            assert!(lease.renew(|&old| old == 1).await.unwrap());
            assert_eq!(*lease.papers().await.unwrap(), 2);
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn papers_that_run_out_are_replaced_before_they_do() {
        let now = SystemTime::now();
        let held = |life: u64| {
            let until = Some(now + Duration::from_secs(life));
            Held::new(Issued { papers: 1, until }, now)
        };
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        assert!(held(3600).is_fresh(later(3299)));
        assert!(!held(3600).is_fresh(later(3301)) && held(3600).is_good(later(3301)));
        assert!(held(40).is_fresh(later(29)) && !held(40).is_fresh(later(31)));
        assert!(!held(0).is_fresh(now) && !held(0).is_good(now));
        let forever = Held::new(
            Issued {
                papers: 1,
                until: None,
            },
            now,
        );
        assert!(forever.is_fresh(later(1 << 30)));
    }

    #[test]
    fn papers_that_are_good_yet_are_shown_while_there_are_no_new_ones() {
        let (lease, count) = lease(Some(3600), 1);
        wait(async {
            lease.papers().await.unwrap();
            lease.held.lock().await.as_mut().unwrap().renew_at = Some(SystemTime::UNIX_EPOCH);
            assert_eq!(*lease.papers().await.unwrap(), 1);
            assert_eq!(*lease.papers().await.unwrap(), 1);
            // One attempt, and a pause.
            assert_eq!(count.load(Ordering::SeqCst), 2);
            lease.held.lock().await.as_mut().unwrap().until = Some(SystemTime::UNIX_EPOCH);
            assert!(lease.papers().await.is_err());
        });
    }

    #[test]
    fn the_same_papers_again_are_no_other_ones() {
        #[derive(Debug)]
        struct Same;
        impl Issuer for Same {
            type Papers = u32;
            fn issue(&self) -> Pending<'_, Issued<u32>> {
                Box::pin(async {
                    Ok(Issued {
                        papers: 7,
                        until: None,
                    })
                })
            }
        }
        let lease = Lease::new(Same);
        wait(async {
            lease.papers().await.unwrap();
            assert!(!lease.renew(|_| true).await.unwrap());
        });
    }
}
