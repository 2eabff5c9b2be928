//! Licence expressions (SPDX): enough of the grammar to say whether an allow list satisfies one.

/// Whether the expression can be met with allowed licences only.
///
/// `OR` needs one side, `AND` both; `A/B`, the form of old manifests, means `OR`; an exception only
/// adds permissions, so what follows `WITH` does not matter.
pub(super) fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.any() == Some(true) && parser.words.is_empty()
}

/// The `allow` list of `deny.toml`'s `[licenses]`.
pub(super) fn allowed(deny: &str) -> Vec<String> {
    let section = deny.split_once("[licenses]").map_or("", |(_, rest)| rest);
    let list = section.split_once("allow = [").map_or("", |(_, rest)| rest);
    let list = list.split_once(']').map_or("", |(list, _)| list);
    let quoted = |(index, part): (usize, &str)| (index % 2 == 1).then(|| part.to_owned());
    list.split('"').enumerate().filter_map(quoted).collect()
}

/// Recursive descent; `None` is an expression that is malformed.
struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.any()?;
            return self.take(")").then_some(met);
        }
        let (name, rest) = self.words.split_first()?;
        if ["AND", "OR", "WITH", ")"].contains(name) {
            return None;
        }
        self.words = rest;
        if self.take("WITH") {
            self.words = self.words.split_first()?.1;
        }
        Some(self.allowed.iter().any(|allowed| allowed == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        satisfied(
            expression,
            &["MIT".into(), "Apache-2.0".into(), "ISC".into()],
        )
    }

    #[test]
    fn one_side_of_an_or_is_enough_and_an_and_needs_both() {
        assert!(met("MIT"));
        assert!(met("GPL-2.0 OR MIT"));
        assert!(met("Unlicense/MIT"));
        assert!(met("ISC AND (Apache-2.0 OR GPL-3.0)"));
        assert!(met("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(!met("MIT AND GPL-2.0"));
        assert!(!met("GPL-2.0"));
        assert!(!met("(GPL-2.0 OR LGPL-2.1) AND MIT"));
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(met("MIT OR GPL-2.0 AND GPL-3.0"));
        assert!(!met("GPL-3.0 OR GPL-2.0 AND MIT"));
    }

    #[test]
    fn a_malformed_expression_is_never_satisfied() {
        for text in [
            "", "MIT OR", "(MIT", "MIT)", "MIT MIT", "AND MIT", "MIT WITH",
        ] {
            assert!(!met(text), "{text:?}");
        }
    }

    #[test]
    fn the_allow_list_is_read_out_of_its_section() {
        let deny = "[bans]\nallow = [\"no\"]\n[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n[sources]\nallow = [\"x\"]\n";
        assert_eq!(allowed(deny), ["MIT", "ISC"]);
        assert_eq!(allowed(""), Vec::<String>::new());
    }
}
