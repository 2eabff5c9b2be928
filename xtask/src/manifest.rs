//! `cargo xtask manifest`: what installs Longshore, with images of one's own.

use anyhow::{Result, bail};

use crate::{paths, say};

/// What to print.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the images are, as `cargo xtask images --push` was told: registry.example.org/longshore
    #[arg(long, value_name = "PREFIX")]
    image_prefix: String,
    /// Their tag
    #[arg(long, default_value = "dev")]
    tag: String,
}

/// What deploy/longshore.yaml calls its images.
const PREFIX: &str = "longshore.dev/";
const TAG: &str = ":dev";

pub(crate) fn run(args: &Args) -> Result<()> {
    let text = paths::read(&paths::root().join("deploy/longshore.yaml"))?;
    say::line(with_images(&text, args)?.trim_end());
    Ok(())
}

fn with_images(text: &str, args: &Args) -> Result<String> {
    let prefix = args.image_prefix.trim_end_matches('/');
    if prefix.is_empty() || prefix.contains("://") || prefix.contains(char::is_whitespace) {
        bail!("an image prefix is a registry and a path, such as registry.example.org/longshore");
    }
    let lines = text.lines().map(|line| {
        let Some((front, image)) = line.split_once(PREFIX) else {
            return format!("{line}\n");
        };
        let name = image.strip_suffix(TAG).unwrap_or(image);
        format!("{front}{prefix}/{name}:{}\n", args.tag)
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(prefix: &str) -> Args {
        Args {
            image_prefix: prefix.to_owned(),
            tag: "v1".to_owned(),
        }
    }

    #[test]
    fn both_images_are_replaced_and_nothing_else() {
        let text = paths::read(&paths::root().join("deploy/longshore.yaml")).unwrap();
        let made = with_images(&text, &args("registry.example.org/a/")).unwrap();
        for image in ["cdi-controller", "cdi-importer"] {
            let image = format!("registry.example.org/a/{image}:v1");
            assert_eq!(made.matches(&image).count(), 1, "{image}");
        }
        assert!(!made.contains(PREFIX));
        let changed = text.lines().zip(made.lines()).filter(|(a, b)| a != b);
        assert_eq!(changed.count(), 2);
        assert_eq!(text.lines().count(), made.lines().count());
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for prefix in ["", "/", "https://registry.example.org", "a b"] {
            assert!(with_images("", &args(prefix)).is_err(), "{prefix}");
        }
    }
}
