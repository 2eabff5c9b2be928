//! Which distribution this is, and what that means for QEMU.

use std::fs;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Debian,
    Ubuntu,
    Other,
}

#[derive(Debug)]
pub(crate) struct System {
    pub(crate) family: Family,
    pub(crate) codename: String,
    pub(crate) name: String,
}

impl System {
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            let found = os_release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches('"').to_owned()
        };
        let (id, like) = (value("ID"), value("ID_LIKE"));
        let is = |name: &str| id == name || like.split_whitespace().any(|word| word == name);
        let family = if is("ubuntu") {
            Family::Ubuntu
        } else if is("debian") {
            Family::Debian
        } else {
            Family::Other
        };
        Self {
            family,
            codename: value("VERSION_CODENAME"),
            name: value("PRETTY_NAME"),
        }
    }

    /// The suite that has the QEMU we are tested with, where the release itself has an older one.
    pub(crate) fn qemu_backports(&self) -> Option<String> {
        (self.family == Family::Debian && self.codename == "bookworm")
            .then(|| "bookworm-backports".to_owned())
    }

    /// The oldest QEMU to be content with: the tested one where we can install it, elsewhere the
    /// first with every option that the launcher passes.
    pub(crate) fn qemu_wanted(&self) -> (u32, u32) {
        if self.qemu_backports().is_some() {
            (10, 0)
        } else {
            (8, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookworm_takes_qemu_from_backports() {
        let system = System::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n",
        );
        assert_eq!(system.family, Family::Debian);
        assert_eq!(
            system.qemu_backports().as_deref(),
            Some("bookworm-backports")
        );
        assert_eq!(system.qemu_wanted(), (10, 0));
    }

    #[test]
    fn ubuntu_and_its_children_take_their_own_qemu() {
        let system =
            System::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=bookworm\n");
        assert_eq!(system.family, Family::Ubuntu);
        assert_eq!(system.qemu_backports(), None);
    }

    #[test]
    fn anything_else_is_not_touched() {
        assert_eq!(System::parse("ID=fedora\n").family, Family::Other);
        assert_eq!(System::parse("").family, Family::Other);
    }
}
