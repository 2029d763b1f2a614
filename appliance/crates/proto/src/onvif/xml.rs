//! XML of cameras, as a small tree: bounded, without entities of its own, blind to prefixes.
//!
//! Cameras get namespaces wrong in every possible way, so elements are known by their local name alone. A document type
//! declaration is refused: SOAP forbids it, and it is where entity bombs live.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

/// Longest document, in bytes.
pub(super) const MAX_LEN: usize = 256 << 10;
/// Deepest nesting.
pub(super) const MAX_DEPTH: usize = 32;
/// Most elements.
pub(super) const MAX_ELEMENTS: usize = 8_192;
/// Most attributes of one element, those that declare namespaces included.
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// Why a text is not taken as XML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Longer than [`MAX_LEN`].
    #[error("the document has {0} bytes, at most {MAX_LEN} are read")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the document is not UTF-8")]
    Encoding,
    /// Not well-formed.
    #[error("the document is no XML: {0}")]
    Malformed(String),
    /// A document type declaration.
    #[error("the document has a document type declaration, which SOAP forbids")]
    DocType,
    /// A reference to an entity that XML itself does not define.
    #[error("the document refers to an entity of its own")]
    Entity,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("elements are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More than [`MAX_ELEMENTS`] elements.
    #[error("the document has more than {MAX_ELEMENTS} elements")]
    TooMany,
    /// More than [`MAX_ATTRIBUTES`] attributes.
    #[error("an element has more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// Ends before its root does, or has none.
    #[error("the document ends too early")]
    Truncated,
}

/// One element with all that is inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Its name without prefix.
    pub(super) name: String,
    /// Its attributes, names without prefix.
    pub(super) attributes: Vec<(String, String)>,
    /// Its text, white space at both ends removed.
    pub(super) text: String,
    /// Its elements, in order.
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// What lies at the end of a path of first children.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The text at the end of a path, where there is any.
    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }

    /// An attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a document; the answer is its root.
pub(super) fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
    if bytes.len() > MAX_LEN {
        return Err(XmlError::TooLong(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| XmlError::Encoding)?;
    // A few cameras begin with a byte order mark or an empty line.
    let mut reader = Reader::from_str(text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']));
    let mut tree = Tree::default();
    loop {
        match reader.read_event().map_err(|error| XmlError::Malformed(error.to_string()))? {
            Event::Start(start) => tree.open(&start)?,
            Event::Empty(start) => {
                tree.open(&start)?;
                tree.close()?;
            }
            Event::End(_) => tree.close()?,
            Event::Text(text) => tree.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => tree.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(character)) => tree.text(character.encode_utf8(&mut [0; 4])),
                Ok(None) => {
                    tree.text(resolve_predefined_entity(&reference).ok_or(XmlError::Entity)?);
                }
                Err(error) => return Err(XmlError::Malformed(error.to_string())),
            },
            Event::DocType(_) => return Err(XmlError::DocType),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => return Err(XmlError::Truncated),
        }
        // What follows the root is of no interest; some cameras send rubbish there.
        if let Some(root) = tree.root.take() {
            return Ok(root);
        }
    }
}

/// Text as it may stand in an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    // Characters that XML 1.0 cannot carry at all are left out.
    let legal: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect();
    quick_xml::escape::escape(legal.as_str()).into_owned()
}

#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    elements: usize,
    root: Option<Element>,
}

impl Tree {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooDeep);
        }
        self.elements = self.elements.saturating_add(1);
        if self.elements > MAX_ELEMENTS {
            return Err(XmlError::TooMany);
        }
        let mut attributes = Vec::new();
        // Unchecked: looking for doubles is quadratic, and the first one counts.
        for (index, attribute) in start.attributes().with_checks(false).enumerate() {
            if index >= MAX_ATTRIBUTES {
                return Err(XmlError::TooManyAttributes);
            }
            let malformed = |error: String| XmlError::Malformed(error);
            let attribute = attribute.map_err(|error| malformed(error.to_string()))?;
            let name = attribute.key.as_ref();
            if name == "xmlns" || name.starts_with("xmlns:") {
                continue;
            }
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| malformed(error.to_string()))?;
            attributes.push((attribute.key.local_name().as_ref().to_owned(), value.trim().to_owned()));
        }
        let name = start.local_name().as_ref().to_owned();
        self.open.push(Element { name, attributes, ..Element::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), XmlError> {
        let mut element = self.open.pop().ok_or(XmlError::Truncated)?;
        element.text = element.text.trim().to_owned();
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_do_not_matter_and_text_is_unescaped() {
        let wire = "\u{feff}\r\n<?xml version='1.0'?><!-- x --><a:root xmlns:a='u' b:key=' v&lt;1 '>\n <c>x &amp; &#x41;<![CDATA[<y>]]> </c><z:c/></a:root>rubbish";
        let root = parse(wire.as_bytes()).unwrap();
        assert_eq!((root.name.as_str(), root.attribute("key")), ("root", Some("v<1")));
        assert_eq!(root.text_at(&["c"]), Some("x & A<y>"));
        assert_eq!(root.all("c").count(), 2);
        assert_eq!(root.attributes.len(), 1, "namespaces are not attributes");
    }

    #[test]
    fn every_bound_holds_at_and_past_its_limit() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(parse(nested(MAX_DEPTH + 1).as_bytes()), Err(XmlError::TooDeep));
        let wide = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
        assert!(parse(wide(MAX_ELEMENTS).as_bytes()).is_ok());
        assert_eq!(parse(wide(MAX_ELEMENTS + 1).as_bytes()), Err(XmlError::TooMany));
        let attributes = |count: usize| {
            let list: String = (0..count).map(|index| format!(" a{index}='x'")).collect();
            format!("<a{list}/>")
        };
        assert!(parse(attributes(MAX_ATTRIBUTES).as_bytes()).is_ok());
        assert_eq!(parse(attributes(MAX_ATTRIBUTES + 1).as_bytes()), Err(XmlError::TooManyAttributes));
        let long = |len: usize| format!("<a>{}</a>", "x".repeat(len - 7));
        assert!(parse(long(MAX_LEN).as_bytes()).is_ok());
        assert_eq!(parse(long(MAX_LEN + 1).as_bytes()), Err(XmlError::TooLong(MAX_LEN + 1)));
    }

    #[test]
    fn bombs_and_half_documents_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY x 'yyyy'><!ENTITY z '&x;&x;'>]><a>&z;</a>";
        assert_eq!(parse(bomb.as_bytes()), Err(XmlError::DocType));
        assert_eq!(parse(b"<a>&z;</a>"), Err(XmlError::Entity));
        assert_eq!(parse(b"<a><b></b>"), Err(XmlError::Truncated));
        assert_eq!(parse(b""), Err(XmlError::Truncated));
        assert_eq!(parse(b"\xff<a/>"), Err(XmlError::Encoding));
        assert!(matches!(parse(b"<a></b>"), Err(XmlError::Malformed(_))));
        assert!(matches!(parse(b"<a x='&q;'/>"), Err(XmlError::Malformed(_))));
    }

    #[test]
    fn what_is_escaped_reads_back() {
        let text = "a<b>&\"'\u{1}c\u{e9}";
        let root = parse(format!("<t k=\"{0}\">{0}</t>", escape(text)).as_bytes()).unwrap();
        assert_eq!(root.text, "a<b>&\"'c\u{e9}");
        assert_eq!(root.attribute("k"), Some("a<b>&\"'c\u{e9}"));
    }
}
