//! Which image of several.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::manifest::Descriptor;

/// An operating system and a processor, as Go names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// What an entry of an index is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Offered {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// What is wrong with the name of a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no platform: write linux/arm64, or only arm64")]
pub struct BadPlatform {
    text: String,
}

impl FromStr for Platform {
    type Err = BadPlatform;

    /// Reads `[OS/]ARCHITECTURE[/VARIANT]`.
    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if !part(os) || !part(architecture) || !variant.is_none_or(part) {
            return Err(BadPlatform {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: go_name(architecture).to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl Default for Platform {
    /// This machine's. Disks are Linux images wherever we run.
    fn default() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: go_name(std::env::consts::ARCH).to_owned(),
            variant: None,
        }
    }
}

/// What the kernel and rustc call otherwise.
fn go_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "x86" | "i386" | "i686" => "386",
        "aarch64" => "arm64",
        "powerpc64" | "ppc64" | "powerpc64le" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

impl Platform {
    pub(super) fn os(&self) -> &str {
        &self.os
    }

    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    pub(super) fn variant(&self) -> &str {
        self.variant.as_deref().unwrap_or("")
    }

    /// The best of `entries`: of this platform, else the first that says nothing of platforms, as
    /// upstream chooses.
    pub(super) fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let best = entries
            .iter()
            .filter_map(|entry| Some((self.distance(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|(distance, _)| *distance);
        match best {
            Some((_, entry)) => Some(entry),
            None => entries
                .iter()
                .find(|entry| entry.platform.is_none() && !entry.is_about_another()),
        }
    }

    /// How far `offered` is from what is wanted; `None` if it does not run.
    fn distance(&self, offered: &Offered) -> Option<usize> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let usual = |variant: Option<&str>| match (self.architecture.as_str(), variant) {
            // Of arm64 there is no other: an image may name it or not.
            (_, Some("")) | ("arm64", Some("v8")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        let (wanted, has) = (
            usual(self.variant.as_deref()),
            usual(offered.variant.as_deref()),
        );
        match (wanted, has) {
            (wanted, has) if wanted == has => Some(0),
            (Some(_), _) => None,
            // The newer the better, and an unknown one at last.
            (None, has) => Some(match has.as_deref() {
                Some("v7") => 1,
                Some("v6") => 2,
                Some("v5") => 3,
                _ => 4,
            }),
        }
    }
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Described<'a> = Option<(&'a str, &'a str, Option<&'a str>)>;

    fn entries(platforms: &[Described<'_>]) -> Vec<Descriptor> {
        let entry = |(at, platform): (usize, &Described<'_>)| Descriptor {
            platform: platform.map(|(os, architecture, variant)| Offered {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.map(str::to_owned),
            }),
            ..Descriptor::test(at as u64)
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    fn chosen(platform: &str, entries: &[Descriptor]) -> Option<u64> {
        let platform: Platform = platform.parse().unwrap();
        platform.choose(entries).map(|entry| entry.size)
    }

    #[test]
    fn the_entry_of_the_platform_is_chosen_and_variants_fit() {
        let all = entries(&[
            Some(("unknown", "unknown", None)),
            Some(("linux", "amd64", None)),
            Some(("linux", "arm64", Some("v8"))),
            Some(("linux", "arm", Some("v6"))),
            Some(("linux", "arm", Some("v7"))),
            Some(("windows", "amd64", None)),
        ]);
        for (platform, expected) in [
            ("amd64", Some(1)),
            ("x86_64", Some(1)),
            ("linux/arm64", Some(2)),
            ("linux/arm64/v8", Some(2)),
            ("linux/arm64/v9", None),
            ("linux/arm", Some(4)),
            ("linux/arm/v6", Some(3)),
            ("windows/amd64", Some(5)),
            ("s390x", None),
        ] {
            assert_eq!(chosen(platform, &all), expected, "{platform}");
        }
    }

    #[test]
    fn an_entry_without_a_platform_is_for_all() {
        let all = entries(&[Some(("linux", "amd64", None)), None]);
        assert_eq!(chosen("s390x", &all), Some(1));
        assert_eq!(chosen("amd64", &all), Some(0));
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "/", "a/b/c/d", "linux/", "li nux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(Platform::default().os(), "linux");
    }
}
