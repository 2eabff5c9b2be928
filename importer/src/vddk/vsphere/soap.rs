//! SOAP as vSphere speaks it: requests as text, and answers within bounds.
//!
//! Answers are read in one pass. Types of documents (and with them entities that grow) are refused, and so
//! is what is deeper or has more elements than any answer to our questions.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesStart, Event};

/// A disk on top of 32 others, the most there can be, is some 45 deep.
const MOST_DEPTH: usize = 96;
/// Elements of an answer that is kept whole: several times the devices of the largest machine.
const MOST_NODES: usize = 64 << 10;
/// Text of one element.
const MOST_TEXT: usize = 64 << 10;

/// A managed object reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vddk) struct Reference {
    pub(in crate::vddk) kind: String,
    pub(in crate::vddk) value: String,
}

impl Reference {
    pub(in crate::vddk) fn new(kind: &str, value: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            value: value.to_owned(),
        }
    }
}

/// A request. Elements come in the order of vSphere's interface, which insists on it.
#[derive(Clone)]
pub(super) struct Call {
    method: &'static str,
    body: String,
}

impl Call {
    pub(super) fn new(method: &'static str, this: &Reference) -> Self {
        Self {
            method,
            body: String::new(),
        }
        .reference("_this", this)
    }

    pub(super) fn reference(mut self, name: &str, to: &Reference) -> Self {
        let (kind, value) = (escape(&*to.kind), escape(&*to.value));
        // Writing to a string does not fail.
        let _ = write!(self.body, "<{name} type=\"{kind}\">{value}</{name}>");
        self
    }

    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        let _ = write!(self.body, "<{name}>{}</{name}>", escape(text));
        self
    }

    pub(super) fn inside(mut self, name: &str, fill: impl FnOnce(Self) -> Self) -> Self {
        let _ = write!(self.body, "<{name}>");
        let mut filled = fill(self);
        let _ = write!(filled.body, "</{name}>");
        filled
    }

    /// All of it.
    pub(super) fn envelope(&self) -> String {
        let Self { method, body } = self;
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <soapenv:Body><{method} xmlns=\"urn:vim25\">{body}</{method}></soapenv:Body>\
             </soapenv:Envelope>"
        )
    }
}

/// Why an answer can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("it is no XML")]
    Xml,
    #[error("it declares a type of document")]
    Doctype,
    #[error("it is nested too deeply")]
    Deep,
    #[error("it has too many elements")]
    Many,
    #[error("it has too long a text")]
    Long,
    #[error("it ends in the middle")]
    Cut,
}

/// A step of the way through an answer. Names are without their prefixes.
pub(super) enum Step<'a> {
    Open {
        name: &'a str,
        /// `xsi:type`: what it is.
        is: Option<String>,
        /// `type`: what a reference leads to.
        to: Option<String>,
    },
    Close {
        name: &'a str,
        text: String,
    },
}

/// Goes through an answer, as long as `visit` wants more.
pub(super) fn scan(
    body: &[u8],
    mut visit: impl FnMut(Step<'_>) -> Result<bool, Nonsense>,
) -> Result<(), Nonsense> {
    let body = String::from_utf8_lossy(body);
    let mut reader = Reader::from_str(&body);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0usize;
    let mut began = false;
    let mut text = String::new();
    // Every turn takes some of the body, or ends.
    loop {
        match reader.read_event().map_err(|_| Nonsense::Xml)? {
            Event::Start(element) => {
                depth += 1;
                began = true;
                if depth > MOST_DEPTH {
                    return Err(Nonsense::Deep);
                }
                text.clear();
                let (is, to) = types(&element);
                let name = element.local_name();
                let name = name.as_ref();
                if !visit(Step::Open { name, is, to })? {
                    return Ok(());
                }
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::CData(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => {
                if let Ok(Some(c)) = reference.resolve_char_ref() {
                    text.push(c);
                } else {
                    let name = reference.into_inner();
                    text.push_str(resolve_predefined_entity(&name).unwrap_or_default());
                }
            }
            Event::End(element) => {
                // An end without a beginning is no XML.
                depth = depth.checked_sub(1).ok_or(Nonsense::Xml)?;
                let name = element.local_name();
                let (name, text) = (name.as_ref(), std::mem::take(&mut text));
                if !visit(Step::Close { name, text })? {
                    return Ok(());
                }
            }
            Event::DocType(_) => return Err(Nonsense::Doctype),
            Event::Eof if depth > 0 || !began => return Err(Nonsense::Cut),
            Event::Eof => return Ok(()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
        if text.len() > MOST_TEXT {
            return Err(Nonsense::Long);
        }
    }
}

/// `xsi:type` and `type`.
fn types(element: &BytesStart<'_>) -> (Option<String>, Option<String>) {
    let (mut is, mut to) = (None, None);
    for attribute in element.attributes().flatten() {
        if attribute.key.local_name().as_ref() != "type" {
            continue;
        }
        let value = attribute.value.to_string();
        match attribute.key.prefix() {
            // Some write the name of the type with a prefix, too.
            Some(_) => is = value.rsplit(':').next().map(str::to_owned),
            None => to = Some(value),
        }
    }
    (is, to)
}

/// An element of an answer.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) is: Option<String>,
    to: Option<String>,
    pub(super) text: String,
    pub(super) children: Vec<Self>,
}

impl Node {
    /// The whole answer; the node has no name, and what is in the envelope's body as children.
    pub(super) fn read(body: &[u8]) -> Result<Self, Nonsense> {
        let mut open = vec![Self::default()];
        let mut nodes = 0;
        scan(body, |step| {
            match step {
                Step::Open { name, is, to } => {
                    nodes += 1;
                    if nodes > MOST_NODES {
                        return Err(Nonsense::Many);
                    }
                    open.push(Self {
                        name: name.to_owned(),
                        is,
                        to,
                        ..Self::default()
                    });
                }
                Step::Close { text, .. } => {
                    let mut node = open.pop().ok_or(Nonsense::Xml)?;
                    text.trim().clone_into(&mut node.text);
                    let parent = open.last_mut().ok_or(Nonsense::Xml)?;
                    parent.children.push(node);
                }
            }
            Ok(true)
        })?;
        let root = open.pop().ok_or(Nonsense::Xml)?;
        Ok(root
            .children
            .into_iter()
            .find(|node| node.name == "Envelope")
            .and_then(|envelope| envelope.children.into_iter().find(|n| n.name == "Body"))
            .unwrap_or_default())
    }

    /// The first child of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first of this name among the children of its first child that has one, and so on.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of a child, if it has one.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        let text = self.get(name).map(|child| child.text.as_str());
        text.filter(|text| !text.is_empty())
    }

    /// What a reference leads to.
    pub(super) fn reference(&self) -> Option<Reference> {
        let kind = self.to.as_deref()?;
        (!self.text.is_empty()).then(|| Reference::new(kind, &self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enveloped(body: &str) -> Vec<u8> {
        format!(
            "<?xml version=\"1.0\"?>\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><s:Body>{body}</s:Body></s:Envelope>"
        )
        .into_bytes()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let machine = Reference::new("VirtualMachine", "vm-<9>");
        let call = Call::new("Login", &machine)
            .text("password", "a&<b>\"'")
            .inside("spec", |call| call.text("all", "false").text("all", "true"));
        let node = Node::read(call.envelope().as_bytes()).unwrap();
        let login = node.get("Login").unwrap();
        assert_eq!(login.get("_this").unwrap().reference(), Some(machine));
        assert_eq!(login.text_of("password"), Some("a&<b>\"'"));
        assert_eq!(login.at(&["spec", "all"]).unwrap().text, "false");
        assert_eq!(login.get("spec").unwrap().all("all").count(), 2);
    }

    #[test]
    fn types_are_of_the_element_or_of_what_it_leads_to() {
        let answer = enveloped(
            "<R><val xsi:type=\"vim25:ManagedObjectReference\" type=\"Folder\">f&#45;1</val><e/></R>",
        );
        let node = Node::read(&answer).unwrap();
        let value = node.at(&["R", "val"]).unwrap();
        assert_eq!(value.is.as_deref(), Some("ManagedObjectReference"));
        assert_eq!(value.reference(), Some(Reference::new("Folder", "f-1")));
        assert_eq!(node.at(&["R", "e"]).unwrap().reference(), None);
    }

    #[test]
    fn hostile_answers_end_in_an_error() {
        let nested = "<a>".repeat(MOST_DEPTH) + &"</a>".repeat(MOST_DEPTH);
        let long = format!("<a>{}</a>", "x".repeat(MOST_TEXT + 1));
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        for (body, why) in [
            (enveloped(&nested), Nonsense::Deep),
            (enveloped(&"<a/>".repeat(MOST_NODES)), Nonsense::Many),
            (enveloped(&long), Nonsense::Long),
            (bomb.as_bytes().to_vec(), Nonsense::Doctype),
            (b"<a><b>".to_vec(), Nonsense::Cut),
            (b"".to_vec(), Nonsense::Cut),
            (b"not found".to_vec(), Nonsense::Cut),
            (b"<a></b>".to_vec(), Nonsense::Xml),
            (b"</a>".to_vec(), Nonsense::Xml),
        ] {
            assert_eq!(Node::read(&body).unwrap_err(), why);
        }
        // XML, and not SOAP.
        let other = Node::read(b"<html><body>no</body></html>").unwrap();
        assert!(other.children.is_empty());
    }
}
