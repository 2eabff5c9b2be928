//! What a process finds around it: variables of its environment.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where variables are looked up. By default in the environment of this process.
#[derive(Clone, Default)]
pub struct Ambient(Option<Arc<HashMap<String, String>>>);

impl Ambient {
    /// Only these variables, whatever the environment has.
    pub fn only<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self(Some(Arc::new(pairs.collect())))
    }

    /// The value of a variable. An empty one counts as none, as it does for the stores' own tools.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            Some(only) => only.get(name).cloned(),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The first of these that is there.
    pub(crate) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    /// True if the variable says yes.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A file in the user's home.
    pub(crate) fn home(&self, path: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.get("HOME")?).join(path))
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are secrets.
        f.debug_struct("Ambient").finish_non_exhaustive()
    }
}
