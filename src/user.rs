//! Who is connected.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One identity, however many connections it has.
///
/// An integer within ±(2^53−1), the range every JSON parser agrees on, and its canonical decimal
/// text name the same user; it goes out as a JSON number. Any other text goes out as a string.
///
/// ```
/// use fanfare::UserId;
///
/// assert_eq!(UserId::parse("42").unwrap(), UserId::from(42));
/// assert_ne!(UserId::parse("042").unwrap(), UserId::from(42));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Number(i64),
    Text(Arc<str>),
}

impl UserId {
    /// A user from text: a number if the text is the canonical form of one in range.
    ///
    /// # Errors
    ///
    /// The text must hold 1 to [`USER_ID_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidUserId> {
        if text.is_empty() || text.len() > USER_ID_MAX {
            return Err(InvalidUserId::Length(text.len()));
        }
        let number = text.parse().ok().filter(|n| in_range(*n) && is_canonical(text));
        Ok(Self(number.map_or_else(|| Repr::Text(text.into()), Repr::Number)))
    }

    /// A user from an integer.
    ///
    /// # Errors
    ///
    /// The integer must lie within ±(2^53−1).
    pub fn number(number: i64) -> Result<Self, InvalidUserId> {
        if in_range(number) { Ok(Self(Repr::Number(number))) } else { Err(InvalidUserId::Range) }
    }
}

impl From<i32> for UserId {
    fn from(number: i32) -> Self {
        Self(Repr::Number(number.into()))
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Number(number) => serializer.serialize_i64(*number),
            Repr::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = UserId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of 1 to 128 bytes or an integer within ±(2^53-1)")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<UserId, E> {
                UserId::number(number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<UserId, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<UserId, E> {
                UserId::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Number(number) => number.fmt(f),
            Repr::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({self})")
    }
}

/// Why a value names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUserId {
    /// Bytes of a text that is empty or too long.
    #[error("a user of {0} bytes is not allowed; use 1 to 128")]
    Length(usize),
    /// An integer that JSON parsers do not agree on.
    #[error("a numeric user must lie within ±(2^53-1)")]
    Range,
}

/// Who connects, as checked credentials or an embedder say.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user that this connection joins.
    pub user: UserId,
    /// What others see as its name. Of a token at most [`NAME_MAX`](crate::auth::NAME_MAX) bytes; a
    /// longer one may make its user's messages too large to be said.
    pub name: Arc<str>,
    /// When the connection must close with 3005, if ever.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// An identity that does not expire, named `User <id>` as the chat protocol has it.
    pub fn new(user: UserId) -> Self {
        let name = format!("User {user}").into();
        Self { user, name, expires: None }
    }

    /// The same identity under another name.
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..self }
    }
}

fn in_range(number: i64) -> bool {
    number.unsigned_abs() < 1 << 53
}

fn is_canonical(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0" || (digits.starts_with(|c| matches!(c, '1'..='9')))
}

/// Bytes of the longest user given as text.
pub const USER_ID_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        serde_json::to_string(&UserId::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn canonical_integers_in_range_are_numbers() {
        for text in ["0", "42", "-1", "9007199254740991", "-9007199254740991"] {
            assert_eq!(json(text), text);
        }
    }

    #[test]
    fn everything_else_is_text() {
        for text in ["042", "-0", "+1", "1.0", "1e3", " 1", "9007199254740992", "ada", "١"] {
            assert_eq!(json(text), format!("\"{text}\""));
        }
    }

    #[test]
    fn json_numbers_and_strings_name_the_same_user() {
        let user = |json| serde_json::from_str::<UserId>(json);
        assert_eq!(user("42").unwrap(), user("\"42\"").unwrap());
        for json in ["4.5", "null", "true", "[]", "{}", "\"\"", "9007199254740992", "1e400"] {
            assert!(user(json).is_err(), "{json}");
        }
    }

    #[test]
    fn length_and_range_are_bounded() {
        assert_eq!(UserId::parse(""), Err(InvalidUserId::Length(0)));
        assert!(UserId::parse(&"u".repeat(128)).is_ok());
        assert_eq!(UserId::parse(&"u".repeat(129)), Err(InvalidUserId::Length(129)));
        assert_eq!(UserId::number(1 << 53), Err(InvalidUserId::Range));
        assert_eq!(UserId::number(i64::MIN), Err(InvalidUserId::Range));
    }
}
