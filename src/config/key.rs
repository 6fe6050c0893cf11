//! One setting: where its value lies, how it is written, and its bounds.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::Uri;
use jsonwebtoken::Algorithm;

use super::choice::Choice;
use super::value::{format_duration, format_size, parse_duration, parse_size};
use super::{Config, HookCall, Secret, broker, hook};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// What it does, and what is traded.
    pub meaning: &'static str,
    kind: Kind,
}

impl Key {
    pub(super) const fn new(name: &'static str, meaning: &'static str, kind: Kind) -> Self {
        Self { name, meaning, kind }
    }

    /// The default, or what stands in parentheses for there being none.
    pub fn default(&self) -> String {
        self.get(&Config::default())
    }

    /// Which values are taken.
    pub fn allowed(&self) -> String {
        match &self.kind {
            Kind::Address(_) => ADDRESS.to_owned(),
            Kind::AddressOrNone(_) => format!("{ADDRESS}; or nothing"),
            Kind::Algorithms(_) => "HS256, HS384, HS512, or several of them".to_owned(),
            Kind::Calls(_) => {
                format!("{}, or several of them", one_of(HookCall::Connect.words()))
            }
            Kind::Choice(field) => one_of(field(&mut Config::default()).words()),
            Kind::Connections(_) => "a number of at least 1".to_owned(),
            Kind::Count(_, range) => format!("a number from {} to {}", range.start(), range.end()),
            Kind::Duration(_, range) => {
                let (least, most) = (*range.start(), *range.end());
                format!("a duration from {} to {}", format_duration(least), format_duration(most))
            }
            Kind::Origins(_) => ORIGINS.to_owned(),
            Kind::Secret(_, 1) => "text".to_owned(),
            Kind::Secret(_, least) => format!("at least {least} bytes of text"),
            Kind::Size(_, range) => {
                let (least, most) = (*range.start(), *range.end());
                format!("a size from {} to {}", format_size(least), format_size(most))
            }
            Kind::Text(_, form) => form.allowed.to_owned(),
        }
    }

    /// How a value is written, for who wrote another.
    pub(super) fn example(&self) -> &'static str {
        match self.kind {
            Kind::Duration(..) => ", such as 25s",
            Kind::Size(..) => ", such as 64KiB or 65536",
            _ => "",
        }
    }

    /// Whether its value must never be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(..))
    }

    /// The value in a configuration, as text; of a secret only whether there is one.
    pub(super) fn get(&self, config: &Config) -> String {
        // The table holds one accessor a key, and it is for writing.
        let mut config = config.clone();
        match &self.kind {
            Kind::Address(field) => field(&mut config).to_string(),
            Kind::AddressOrNone(field) => or_none(field(&mut config).map(|it| it.to_string())),
            Kind::Algorithms(field) => {
                let names: Vec<_> = field(&mut config).iter().map(|it| format!("{it:?}")).collect();
                names.join(", ")
            }
            Kind::Calls(field) => {
                let words: Vec<_> = field(&mut config).iter().map(Choice::word).collect();
                or_none(Some(words.join(", ")))
            }
            Kind::Choice(field) => field(&mut config).word().to_owned(),
            Kind::Connections(field) => field(&mut config).map_or_else(
                || "what the descriptor limit allows less 64".to_owned(),
                |n| n.to_string(),
            ),
            Kind::Count(field, _) => field(&mut config).to_string(),
            Kind::Duration(field, _) => format_duration(*field(&mut config)),
            Kind::Origins(field) => or_none(Some(field(&mut config).join(", "))),
            Kind::Secret(field, _) => {
                if field(&mut config).is_some() { "(set)" } else { "(not set)" }.to_owned()
            }
            Kind::Size(field, _) => format_size(*field(&mut config)),
            Kind::Text(field, _) => or_none(Some(field(&mut config).clone())),
        }
    }

    /// Sets it from text; false if the text is not allowed.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        fn store<T>(field: &mut T, value: Option<T>) -> bool {
            value.map(|value| *field = value).is_some()
        }
        let trimmed = text.trim();
        let parsed = match &self.kind {
            Kind::Address(field) => store(field(config), trimmed.parse().ok()),
            Kind::AddressOrNone(field) if trimmed.is_empty() => store(field(config), Some(None)),
            Kind::AddressOrNone(field) => store(field(config), trimmed.parse().ok().map(Some)),
            Kind::Algorithms(field) => {
                let algorithms: Option<_> = list(text).map(|name| name.parse().ok()).collect();
                store(field(config), algorithms)
            }
            Kind::Calls(field) => store(field(config), list(text).map(call).collect()),
            Kind::Choice(field) => field(config).choose(trimmed),
            Kind::Connections(field) => store(field(config), trimmed.parse().ok().map(Some)),
            Kind::Count(field, _) => store(field(config), trimmed.parse().ok()),
            Kind::Duration(field, _) => store(field(config), parse_duration(text)),
            Kind::Origins(field) => {
                store(field(config), Some(list(text).map(str::to_owned).collect()))
            }
            Kind::Secret(field, _) => store(field(config), Some(Some(Secret::new(text)))),
            Kind::Size(field, _) => store(field(config), parse_size(text)),
            Kind::Text(field, _) => store(field(config), Some(trimmed.to_owned())),
        };
        parsed && self.is_in_bounds(config)
    }

    /// Whether the value in a configuration is allowed.
    pub(super) fn is_in_bounds(&self, config: &Config) -> bool {
        let mut config = config.clone();
        match &self.kind {
            Kind::Address(_) | Kind::AddressOrNone(_) | Kind::Calls(_) | Kind::Choice(_) => true,
            Kind::Algorithms(field) => {
                let algorithms = field(&mut config);
                !algorithms.is_empty() && algorithms.iter().all(|it| HMAC.contains(it))
            }
            Kind::Connections(field) => field(&mut config).is_none_or(|count| count > 0),
            Kind::Count(field, range) | Kind::Size(field, range) => {
                range.contains(field(&mut config))
            }
            Kind::Duration(field, range) => range.contains(field(&mut config)),
            Kind::Origins(field) => field(&mut config).iter().all(|origin| is_origin(origin)),
            Kind::Secret(field, least) => {
                field(&mut config).as_ref().is_none_or(|secret| secret.expose().len() >= *least)
            }
            Kind::Text(field, form) => (form.is_allowed)(field(&mut config)),
        }
    }
}

/// Where a key's value lies, how it is written, and its bounds.
#[derive(Debug)]
pub(super) enum Kind {
    Address(fn(&mut Config) -> &mut SocketAddr),
    AddressOrNone(fn(&mut Config) -> &mut Option<SocketAddr>),
    Algorithms(fn(&mut Config) -> &mut Vec<Algorithm>),
    Calls(fn(&mut Config) -> &mut Vec<HookCall>),
    Choice(fn(&mut Config) -> &mut dyn Choice),
    Connections(fn(&mut Config) -> &mut Option<usize>),
    Count(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
    Duration(fn(&mut Config) -> &mut Duration, RangeInclusive<Duration>),
    Origins(fn(&mut Config) -> &mut Vec<String>),
    Secret(fn(&mut Config) -> &mut Option<Secret>, usize),
    Size(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
    Text(fn(&mut Config) -> &mut String, Form),
}

/// What a text must look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    allowed: &'static str,
    is_allowed: fn(&str) -> bool,
}

/// Whether it can name a namespace: channels begin with it and a colon, variables hold it.
pub(super) fn is_namespace_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.chars().all(is_allowed)
}

/// Whether a browser could send it as `Origin`, which is compared byte by byte.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let is_whole = text == format!("{scheme}://{authority}");
    is_whole && !text.contains(['@', '*']) && text == text.to_ascii_lowercase()
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(words: &[&str]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// A call of the hook by its word.
fn call(word: &str) -> Option<HookCall> {
    let mut call = HookCall::Connect;
    call.choose(word).then_some(call)
}

fn or_none(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "(none)".to_owned())
}

/// The elements of a list, separated by commas.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// A filter is checked where the log starts, as only that knows its grammar.
pub(super) const FILTER: Form =
    Form { allowed: "a filter such as info or warn,fanfare=debug", is_allowed: |_| true };

pub(super) const CHANNEL_NAME: Form = Form {
    allowed: "the name of a channel such as chat or news:chat",
    is_allowed: |name| !name.is_empty() && !name.contains(char::is_control),
};

pub(super) const NAMESPACE_NAME: Form = Form {
    allowed: "the name of a namespace, or nothing",
    is_allowed: |name| name.is_empty() || is_namespace_name(name),
};

pub(super) const FILE: Form =
    Form { allowed: "the path of a file, or nothing", is_allowed: |_| true };

pub(super) const NAME: Form = Form {
    allowed: "a name without blanks",
    is_allowed: |name| !name.is_empty() && !name.contains(char::is_whitespace),
};

pub(super) const PREFIX: Form =
    Form { allowed: "1 to 64 letters, digits, `-`, `_` and `.`", is_allowed: broker::is_prefix };

pub(super) const REDIS_URL: Form = Form {
    allowed: "URLs such as redis://127.0.0.1:6379 or rediss://user@example.com:6380/0, without a password, which is for broker.redis.password",
    is_allowed: broker::is_redis_url,
};

pub(super) const NATS_URL: Form = Form {
    allowed: "URLs such as nats://127.0.0.1:4222 or tls://a.example.com:4222,tls://b.example.com:4222, without a user or \
              password, which are for broker.nats.user and broker.nats.password",
    is_allowed: broker::is_nats_url,
};

pub(super) const USER: Form =
    Form { allowed: "the name of a user, or nothing", is_allowed: |_| true };

pub(super) const URL: Form = Form {
    allowed: "a URL such as https://example.com/hook, or nothing",
    is_allowed: |url| url.is_empty() || hook::is_url(url),
};

const ADDRESS: &str = "an address and port such as 127.0.0.1:8080, no host name";

const ORIGINS: &str = "origins such as https://example.com or http://localhost:3000, in lower case, \
    without path; not *, which browsers refuse beside credentials";

/// Bytes of the shortest secret that is ours: 128 bits, if they are random.
pub(super) const SECRET_BYTES_MIN: usize = 16;

/// What a shared secret can sign; asymmetric algorithms would take it for a public key.
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

#[cfg(test)]
mod tests {
    use super::super::table::KEYS;
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends_and_no_more() {
        for origin in ["https://example.com", "http://localhost:3000", "http://[::1]:80", "app://x"]
        {
            assert!(is_origin(origin), "{origin}");
        }
        for text in [
            "*",
            "null",
            "example.com",
            "https://example.com/",
            "https://Example.com",
            "https://*.example.com",
            "https://user@example.com",
            "https://example.com/page",
            "https://",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }

    #[test]
    fn a_namespace_is_named_by_letters_digits_hyphens_and_underscores() {
        assert!(["news", "Live-2", "a_b"].into_iter().all(is_namespace_name));
        assert!(!["", "a:b", "a b", "a.b", "é"].into_iter().any(is_namespace_name));
    }

    #[test]
    fn every_default_can_be_written_as_it_is_shown() {
        let is_shown =
            |key: &&Key| key.name != "limits.connections" && !key.default().starts_with('(');
        for key in KEYS.iter().filter(is_shown) {
            assert!(key.set(&mut Config::default(), &key.default()), "{}", key.name);
        }
    }

    #[test]
    fn what_may_be_nothing_is_set_by_nothing() {
        for name in ["server.internal_bind", "server.allowed_origins", "auth.personal_namespace"] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            assert_eq!(key.default(), "(none)");
            assert!(key.set(&mut Config::default(), ""), "{name}");
        }
    }

    #[test]
    fn the_documentation_lists_every_key() {
        let text = include_str!("../../docs/configuration.md");
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |key: &Key| {
            let default =
                if key.name == "server.shards" { "one a core".to_owned() } else { key.default() };
            format!("| `{}` | {default} | {} | {} |", key.name, key.allowed(), key.meaning)
        };
        let expected: Vec<_> = KEYS.iter().map(row).collect();
        assert_eq!(rows, expected, "\n{}", expected.join("\n"));
    }
}
