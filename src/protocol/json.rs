//! What every reader of JSON here agrees on: objects only, bounded nesting, text compared unescaped.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Reads an object. `None` if the text is not JSON, is no object, or gives a key of `T` twice
/// (RFC 8259 section 4: parsers differ on which one counts).
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    // A derived struct would also accept an array of its fields.
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Reads a string, unescaped; borrows if it holds no escape.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::from_str(raw.get()).ok().map(|Text(text)| text)
}

/// Writes strings and integers, or a struct of them, as Python's `json.dumps(value, separators=(",", ":"), ensure_ascii=False)` does.
#[expect(clippy::expect_used, reason = "only what cannot be written as JSON could fail")]
pub(crate) fn encode(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("strings and integers are always JSON")
}

/// Appends JSON without the line breaks between its tokens, for framings that end with a line.
pub(crate) fn push_one_line(out: &mut String, data: &[u8]) {
    // Whoever let it in has checked that it is JSON, and so UTF-8.
    let text = simdutf8::basic::from_utf8(data).unwrap_or_default();
    // Few have any, and to look for one byte is quick.
    if data.contains(&b'\n') || data.contains(&b'\r') {
        out.extend(text.split(['\n', '\r']));
    } else {
        out.push_str(text);
    }
}

/// Appends a string, escaped where it must be.
pub(crate) fn push_text(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return out.push_str(&encode(text));
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// The same value without such line breaks.
pub(crate) fn one_line(raw: Box<RawValue>) -> Box<RawValue> {
    if !raw.get().contains(['\n', '\r']) {
        return raw;
    }
    let mut text = String::with_capacity(raw.get().len());
    push_one_line(&mut text, raw.get().as_bytes());
    RawValue::from_string(text).unwrap_or(raw)
}

/// The same for a value that may be missing.
pub(crate) fn read_one_line<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.map(one_line))
}

/// Whether a value is one that protocols leave out.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether arrays and objects nest deeper than [`DEPTH_MAX`], the outermost included.
///
/// It runs before any parser and needs no valid JSON: on other input the answer means nothing,
/// but a parser refuses that anyway.
pub(crate) fn is_too_deep(text: &str) -> bool {
    // Without enough brackets it cannot be, and counting is much faster than following strings.
    let opened = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    opened > DEPTH_MAX && depth(text) > DEPTH_MAX
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// Levels of arrays and objects in one message: far more than any chat needs, and few enough for
/// the stack of whatever parser a receiver uses.
pub(crate) const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn exactly_the_limit_is_allowed() {
        assert!(!is_too_deep(&nested(DEPTH_MAX)));
        assert!(!is_too_deep(&format!("[{0},{0}]", nested(DEPTH_MAX - 1))));
        assert!(is_too_deep(&nested(DEPTH_MAX + 1)));
        assert!(is_too_deep(&r#"{"a":"#.repeat(DEPTH_MAX + 1)));
    }

    #[test]
    fn breadth_is_not_depth() {
        assert!(!is_too_deep(&format!("[{}[]]", "[],{},".repeat(1000))));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let brackets = "[{".repeat(100);
        assert!(!is_too_deep(&format!(r#"["{brackets}","\"{brackets}","\\"]"#)));
        assert!(is_too_deep(&format!(r#"["\\",{}]"#, nested(DEPTH_MAX))));
    }

    #[test]
    fn unbalanced_input_is_harmless() {
        assert!(!is_too_deep(&"]".repeat(1000)));
        assert!(!is_too_deep(&format!("\"{}", "[".repeat(1000))));
        assert!(is_too_deep(&format!("]]{}", "[".repeat(DEPTH_MAX + 1))));
    }

    #[test]
    fn a_value_of_several_lines_is_read_as_one() {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default, deserialize_with = "read_one_line")]
            info: Option<Box<RawValue>>,
        }
        let info = |text| object::<Info>(text).unwrap().info.map(|info| info.get().to_owned());
        assert_eq!(info("{\"info\":{\r\n\"a\": \"\\n\"}}"), Some(r#"{"a": "\n"}"#.to_owned()));
        assert_eq!((info("{}"), info(r#"{"info":null}"#)), (None, None));
    }

    #[test]
    fn a_string_is_escaped_where_it_must_be() {
        for text in ["", "ns:42", "ü#7,8", "a\"b", "a\\b", "a\nb", "\u{1f}", "\u{7f}", "</script>"]
        {
            let mut out = String::from("{");
            push_text(&mut out, text);
            assert_eq!(out, format!("{{{}", encode(text)));
        }
    }

    #[test]
    fn arrays_are_no_objects() {
        #[derive(Deserialize)]
        struct Pair {
            a: u8,
        }
        let a = |text| object::<Pair>(text).map(|pair| pair.a);
        assert_eq!(a(" \n{\"a\":1}"), Some(1));
        for text in ["[1]", "1", "", "{\"a\":1}]", "{\"a\":1,\"a\":1}", "\u{feff}{\"a\":1}"] {
            assert_eq!(a(text), None, "{text}");
        }
    }
}
