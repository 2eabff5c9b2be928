//! Which build this is.

use std::fmt;

/// Facts fixed when the program was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// The workspace's version.
    pub version: &'static str,
    /// The git commit, if whoever built this set `LONGSHORE_COMMIT`.
    pub commit: Option<&'static str>,
    /// Processor architecture, as Rust names it.
    pub arch: &'static str,
    /// Debug assertions are on.
    pub debug: bool,
}

/// Which build this is.
pub fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LONGSHORE_COMMIT"),
        arch: std::env::consts::ARCH,
        debug: cfg!(debug_assertions),
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            commit,
            arch,
            debug,
        } = self;
        write!(f, "{version} (")?;
        if let Some(commit) = commit {
            write!(f, "commit {commit}, ")?;
        }
        write!(f, "{arch}")?;
        if *debug {
            f.write_str(", debug build")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_first_and_the_commit_only_if_known() {
        let mut info = BuildInfo {
            version: "1.2.3",
            commit: None,
            arch: "x86_64",
            debug: true,
        };
        assert_eq!(info.to_string(), "1.2.3 (x86_64, debug build)");
        info.commit = Some("abc123");
        info.debug = false;
        assert_eq!(info.to_string(), "1.2.3 (commit abc123, x86_64)");
        assert!(
            build_info()
                .version
                .starts_with(|c: char| c.is_ascii_digit())
        );
    }
}
