//! The few words that matter in a small XML answer.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// The text of the first element of each of these names, wherever it stands. What is no XML has none.
pub(crate) fn texts<'n>(body: &[u8], names: &[&'n str]) -> BTreeMap<&'n str, String> {
    let body = String::from_utf8_lossy(body);
    let mut reader = Reader::from_str(&body);
    let mut found = BTreeMap::new();
    let mut inside: Option<(&'n str, String)> = None;
    // Every turn takes some of the body, or ends.
    loop {
        match reader.read_event() {
            Ok(Event::Start(element)) => {
                let local = element.local_name();
                let name = names.iter().find(|name| **name == local.as_ref());
                inside = name
                    .filter(|name| !found.contains_key(**name))
                    .map(|name| (*name, String::new()));
            }
            Ok(Event::Text(text)) => {
                if let Some((_, all)) = &mut inside {
                    all.push_str(&text.xml10_content());
                }
            }
            Ok(Event::GeneralRef(reference)) => {
                let Some((_, all)) = &mut inside else {
                    continue;
                };
                if let Ok(Some(c)) = reference.resolve_char_ref() {
                    all.push(c);
                } else {
                    let name = reference.into_inner();
                    all.push_str(resolve_predefined_entity(&name).unwrap_or_default());
                }
            }
            Ok(Event::End(_)) => {
                if let Some((name, text)) = inside.take() {
                    found.insert(name, text.trim().to_owned());
                }
            }
            Ok(Event::Eof) | Err(_) => return found,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_name_counts() {
        let body = b"<?xml version='1.0'?><Error xmlns='x'><Code>NoSuchKey</Code>\
            <Message>It&apos;s &lt;gone&gt; &#38; away</Message><Code>Other</Code><Key>k</Key></Error>";
        let found = texts(body, &["Code", "Message", "Region"]);
        assert_eq!(found["Code"], "NoSuchKey");
        assert_eq!(found["Message"], "It's <gone> & away");
        assert!(!found.contains_key("Region"));
    }

    #[test]
    fn what_is_no_xml_has_nothing() {
        for body in [
            &b""[..],
            b"Not Found",
            b"<Code>cut",
            b"<<<>>>",
            b"{\"Code\": 1}",
            b"<Code>&nonsense;",
            b"\xff\xfe<Code>\xff",
        ] {
            assert!(texts(body, &["Code"]).is_empty(), "{body:?}");
        }
        let odd = texts(b"<Code>a&nonsense;b</Code>", &["Code"]);
        assert_eq!(odd["Code"], "ab");
    }
}
