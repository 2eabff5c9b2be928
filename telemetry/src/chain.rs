//! One error, all its causes, one line.

use std::error::Error;

/// More causes than this are not printed; no honest error has as many.
const MAX_CAUSES: usize = 16;
/// The line is cut here, in bytes: texts may quote what came from outside.
const MAX_LEN: usize = 4096;

/// `error` and its causes as "a: b: c".
///
/// A cause that the line already tells, word for word, is left out: some libraries print their source
/// and return it too. Control characters are escaped, so the line is one line and a terminal stays as
/// it is, whatever names the texts quote.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    push_escaped(&mut line, &error.to_string());
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for (depth, cause) in causes.enumerate() {
        if depth == MAX_CAUSES || line.len() > MAX_LEN {
            line.push_str(": ...");
            return line;
        }
        let mut text = String::new();
        push_escaped(&mut text, &cause.to_string());
        if !tells(&line, &text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

/// `text` stands in `line` and not as part of a longer word.
fn tells(line: &str, text: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.is_empty()
        || line.match_indices(text).any(|(at, _)| {
            let (before, rest) = line.split_at(at);
            let after = rest.get(text.len()..).unwrap_or_default();
            !is_word(before.chars().next_back()) && !is_word(after.chars().next())
        })
}

fn push_escaped(line: &mut String, text: &str) {
    for c in text.trim().chars() {
        if line.len() > MAX_LEN {
            line.push_str("...");
            return;
        }
        match c {
            '\n' | '\t' => line.push(' '),
            // Not only the ASCII ones: these turn text around on a terminal.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                line.extend(c.escape_default());
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Self>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            let link = self.1.as_deref()?;
            Some(link)
        }
    }

    fn chain(texts: &[&'static str]) -> String {
        let link = texts
            .iter()
            .rev()
            .fold(None, |next, text| Some(Box::new(Link(text, next))));
        error_chain(&*link.unwrap())
    }

    #[test]
    fn causes_follow_in_order() {
        assert_eq!(chain(&["a"]), "a");
        assert_eq!(
            chain(&["importing failed", "reading disk.qcow2", "no such file"]),
            "importing failed: reading disk.qcow2: no such file"
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        assert_eq!(
            chain(&[
                "read failed: io broke: cable out",
                "io broke: cable out",
                "cable out"
            ]),
            "read failed: io broke: cable out"
        );
        assert_eq!(chain(&["same", "same", "same", "other"]), "same: other");
        assert_eq!(
            chain(&["could not open x (permission denied)", "permission denied"]),
            "could not open x (permission denied)"
        );
        assert_eq!(
            chain(&["unreadable", "read"]),
            "unreadable: read",
            "part of a word is not the word"
        );
        assert_eq!(
            chain(&["a", "", "b"]),
            "a: b",
            "an empty text tells nothing"
        );
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(
            chain(&["bad name\n\x1b[2J\u{202e}evil", "x\r\n"]),
            "bad name \\u{1b}[2J\\u{202e}evil: x"
        );
    }

    #[test]
    fn endless_chains_and_texts_end() {
        #[derive(Debug)]
        struct Endless(u64);
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "turn {}", self.0)
            }
        }
        static ROUND: Endless = Endless(1);
        impl Error for Endless {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&ROUND)
            }
        }
        assert_eq!(error_chain(&Endless(0)), "turn 0: turn 1: ...");
        let text: &'static str = "long ".repeat(10_000).leak();
        let line = chain(&[text, text, "short"]);
        assert!(
            line.len() < MAX_LEN + 100 && line.ends_with("..."),
            "{line}"
        );
    }

    #[test]
    fn umlauts_at_the_edge_of_a_match_do_no_harm() {
        assert_eq!(chain(&["grün", "gr"]), "grün: gr");
        assert_eq!(chain(&["ü", "ü"]), "ü");
    }
}
