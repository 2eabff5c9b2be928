//! What a registry wants to be shown: `WWW-Authenticate` (RFC 9110, 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Most bytes of a header that are looked at.
const MOST: usize = 16 << 10;

/// A way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that is given at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The challenges in an answer, in its order. Unknown ones are left out.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter();
    all.filter_map(|value| value.to_str().ok())
        .filter(|text| text.len() <= MOST)
        .flat_map(parse)
        .collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let end = rest
            .find([' ', '\t', ',', '='])
            .filter(|end| *end > 0)
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            after
        } else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            after
        };
    }
    found.into_iter().filter_map(known).collect()
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn known((scheme, mut parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(n, _)| n == name)?;
        Some(parameters.swap_remove(at).1).filter(|value| !value.is_empty())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: take("realm")?,
            service: take("service"),
            scope: take("scope"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_of_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#;
        assert_eq!(
            parse(hub),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/a:pull,push")
            )]
        );
        assert_eq!(parse("Basic realm=\"Registry\""), [Challenge::Basic]);
        assert_eq!(
            parse(
                "Negotiate, basic realm=x, BEARER Realm = \"a\\\"b\" , error=\"insufficient_scope\""
            ),
            [Challenge::Basic, bearer("a\"b", None, None)]
        );
    }

    #[test]
    fn nonsense_is_no_challenge_and_ends() {
        for text in [
            "",
            ",,,",
            "=",
            "==,=",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"",
            "\"",
            "a=b",
            "Bearer =x",
        ] {
            assert!(parse(text).is_empty(), "{text}");
        }
    }
}
