//! What a `StorageClass` may ask for so that tests see the driver at its worst.
//!
//! | parameter | what happens |
//! |---|---|
//! | `delay` | making a volume takes this many milliseconds longer |
//! | `fail` | making a volume fails with this code (`RESOURCE_EXHAUSTED`, ...) |
//! | `failures` | so many times, for each volume; then it works |

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::grpc::{Code, Status};
use crate::proto::Words;

/// Longer is not waited: the provisioner gives up before.
const LONGEST: u64 = 60_000;

/// How often each volume has failed so far.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    failed: Mutex<HashMap<String, u64>>,
}

impl Wishes {
    /// Does to the making of this volume what its class asks for.
    pub(crate) fn grant(&self, volume: &str, parameters: &Words) -> Result<(), Status> {
        let number = |name: &str| {
            let text = parameters.get(name);
            let number = text.map(|text| {
                text.parse::<u64>()
                    .map_err(|_| Status::invalid(format!("{name} is no number: {text}")))
            });
            number.transpose()
        };
        if let Some(delay) = number("delay")? {
            std::thread::sleep(Duration::from_millis(delay.min(LONGEST)));
        }
        let Some(name) = parameters.get("fail") else {
            return Ok(());
        };
        let code = Code::named(name)
            .ok_or_else(|| Status::invalid(format!("there is no code {name} to fail with")))?;
        let most = number("failures")?.unwrap_or(u64::MAX);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(volume.to_owned()).or_default();
        if *count >= most {
            return Ok(());
        }
        *count += 1;
        let text = format!("the class asks for {name}");
        Err(Status::new(code, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Words {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn a_class_fails_as_often_as_it_asks_for_each_volume() {
        let wishes = Wishes::default();
        let class = words(&[("fail", "RESOURCE_EXHAUSTED"), ("failures", "2")]);
        for _ in 0..2 {
            let refused = wishes.grant("a", &class).unwrap_err();
            assert_eq!(refused.code, Code::ResourceExhausted);
        }
        assert_eq!(wishes.grant("a", &class), Ok(()));
        assert!(wishes.grant("b", &class).is_err());
    }

    #[test]
    fn wishes_that_make_no_sense_are_told() {
        let wishes = Wishes::default();
        for pair in [("fail", "NEVER"), ("delay", "soon")] {
            let refused = wishes.grant("a", &words(&[pair])).unwrap_err();
            assert_eq!(refused.code, Code::InvalidArgument, "{pair:?}");
        }
    }
}
