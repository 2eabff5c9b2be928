//! What an engine answers: JSON, as it is asked to, or XML all the same.
//!
//! XML becomes what the same would be in JSON: attributes and children of an element are keys by their names,
//! and a list where one comes several times; an element with nothing but text is that text. The outermost
//! element, which JSON has no name for, is left out. Numbers stay text, as the engine writes them in JSON too.

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesRef, BytesStart, Event};
use serde_json::{Map, Value};

/// A snapshot with its links is some six deep.
const MOST_DEPTH: usize = 32;
/// Elements and attributes: several thousand snapshots, as many as the bytes of an answer allow in JSON.
const MOST_PARTS: usize = 256 << 10;

/// Why an answer can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("its XML is broken: {0}")]
    Xml(String),
    #[error("its XML declares a type of document, which is not read")]
    Doctype,
    #[error("its XML has the entity &{0}; which is none of XML's own")]
    Entity(String),
    #[error("its XML is more than {MOST_DEPTH} deep")]
    Deep,
    #[error("its XML has more than {MOST_PARTS} elements and attributes")]
    Many,
    #[error("its XML ends in the middle")]
    Cut,
}

/// An answer in whichever way it was written.
pub(super) fn read(body: &[u8]) -> Result<Value, Unreadable> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let body = body.trim_ascii_start();
    if body.starts_with(b"<") {
        of_xml(&String::from_utf8_lossy(body))
    } else {
        Ok(serde_json::from_slice(body)?)
    }
}

/// The values at a key of a list: lists of one are no lists in XML.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    match value.get(key) {
        Some(Value::Array(many)) => many,
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        _ => &[],
    }
}

/// An element that is not closed yet.
#[derive(Default)]
struct Open {
    name: String,
    parts: Map<String, Value>,
    text: String,
}

impl Open {
    fn of(element: &BytesStart<'_>, parts: &mut usize) -> Result<Self, Unreadable> {
        let mut open = Self {
            name: element.local_name().as_ref().to_owned(),
            ..Self::default()
        };
        for attribute in element.attributes() {
            let broken = |e: &dyn std::fmt::Display| Unreadable::Xml(e.to_string());
            let attribute = attribute.map_err(|e| broken(&e))?;
            count(parts)?;
            let value = unescape(&attribute.value).map_err(|e| broken(&e))?;
            let name = attribute.key.local_name().as_ref().to_owned();
            open.add(name, Value::String(value.into_owned()));
        }
        Ok(open)
    }

    fn add(&mut self, name: String, value: Value) {
        match self.parts.get_mut(&name) {
            None => {
                self.parts.insert(name, value);
            }
            Some(Value::Array(many)) => many.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }

    fn value(self) -> Value {
        if self.parts.is_empty() {
            Value::String(self.text.trim().to_owned())
        } else {
            Value::Object(self.parts)
        }
    }
}

/// One more part.
fn count(parts: &mut usize) -> Result<(), Unreadable> {
    *parts += 1;
    if *parts > MOST_PARTS {
        return Err(Unreadable::Many);
    }
    Ok(())
}

fn of_xml(body: &str) -> Result<Value, Unreadable> {
    let mut reader = Reader::from_str(body);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    let mut parts = 0;
    // Every turn takes some of the body, or ends.
    loop {
        match reader
            .read_event()
            .map_err(|e| Unreadable::Xml(e.to_string()))?
        {
            Event::Start(_) if whole.is_some() => {
                return Err(Unreadable::Xml("something follows its end".to_owned()));
            }
            Event::Start(element) => {
                count(&mut parts)?;
                if open.len() >= MOST_DEPTH {
                    return Err(Unreadable::Deep);
                }
                open.push(Open::of(&element, &mut parts)?);
            }
            Event::Text(text) => say(&mut open, &text.xml10_content()),
            Event::CData(text) => say(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => say(&mut open, &resolved(reference)?),
            Event::End(_) => {
                let Some(closed) = open.pop() else {
                    return Err(Unreadable::Xml("an end without a beginning".to_owned()));
                };
                match open.last_mut() {
                    Some(parent) => parent.add(closed.name.clone(), closed.value()),
                    None => whole = Some(closed.value()),
                }
            }
            Event::DocType(_) => return Err(Unreadable::Doctype),
            Event::Eof => return whole.ok_or(Unreadable::Cut),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn say(open: &mut [Open], text: &str) {
    if let Some(open) = open.last_mut() {
        open.text.push_str(text);
    }
}

/// What stands for itself in text.
fn resolved(reference: BytesRef<'_>) -> Result<String, Unreadable> {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return Ok(c.to_string());
    }
    let name = reference.into_inner();
    match resolve_predefined_entity(&name) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Unreadable::Entity(name.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(body: &str) -> String {
        read(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn xml_says_what_json_says() {
        let disk = "\u{feff}\n<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>
            <disk href=\"/ovirt-engine/api/disks/1\" id=\"1\"><!-- of a web server -->
                <actions><link href=\"a\" rel=\"b\"/><link href=\"c\" rel=\"d\"/></actions>
                <name>A &amp; B&#33;</name><description></description><image_id> 9 </image_id>
                <storage_domains><storage_domain id=\"x&quot;y\"/></storage_domains>
                <text><![CDATA[<as it is>]]></text>
            </disk>\n";
        let json = json!({
            "href": "/ovirt-engine/api/disks/1", "id": "1",
            "actions": {"link": [{"href": "a", "rel": "b"}, {"href": "c", "rel": "d"}]},
            "name": "A & B!", "description": "", "image_id": "9",
            "storage_domains": {"storage_domain": {"id": "x\"y"}}, "text": "<as it is>",
        });
        assert_eq!(read(disk.as_bytes()).unwrap(), json);
        assert_eq!(read(json.to_string().as_bytes()).unwrap(), json);
        // What upstream's fake says when it knows nothing.
        assert_eq!(read(b"<error/>").unwrap(), json!(""));
    }

    #[test]
    fn a_list_of_one_is_a_list() {
        let domains = |body: &[u8]| list(&read(body).unwrap(), "d").len();
        assert_eq!(domains(b"<ds><d id='1'/></ds>"), 1);
        assert_eq!(domains(b"<ds><d id='1'/><d id='2'/><d id='3'/></ds>"), 3);
        assert_eq!(domains(b"<ds/>"), 0);
        assert_eq!(domains(b"<ds><d/></ds>"), 0);
        assert_eq!(domains(br#"{"d": [{"id": "1"}]}"#), 1);
        assert_eq!(domains(b"{}"), 0);
    }

    #[test]
    fn hostile_xml_ends_in_an_error_that_says_why() {
        let deep = format!("{}{}", "<a>".repeat(33), "</a>".repeat(33));
        let most = format!("{}{}", "<a>".repeat(32), "</a>".repeat(32));
        assert!(read(most.as_bytes()).is_ok());
        let many = format!("<a>{}</a>", "<b/>".repeat(MOST_PARTS));
        let attributes: Vec<_> = (0..MOST_PARTS).map(|n| format!("a{n:x}=\"\"")).collect();
        let attributes = format!("<a {}/>", attributes.join(" "));
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        for (body, expected) in [
            (deep.as_str(), "more than 32 deep"),
            (&many, "more than 262144 elements"),
            (&attributes, "more than 262144 elements"),
            (bomb, "declares a type of document"),
            ("<a>&c;</a>", "the entity &c; which is none of XML's own"),
            ("<a b=\"&c;\"/>", "its XML is broken"),
            ("<a b=\"1\" b=\"2\"/>", "its XML is broken"),
            ("<a><b></a>", "its XML is broken"),
            ("<a/></b>", "its XML is broken"),
            ("<a/><b/>", "something follows its end"),
            ("<a><b/>", "ends in the middle"),
            ("<!-- nothing -->", "ends in the middle"),
            ("", "EOF while parsing"),
            ("Not Found", "expected"),
        ] {
            let why = why(body);
            let shown: String = body.chars().take(60).collect();
            assert!(why.contains(expected), "{shown}: {why}");
        }
    }
}
