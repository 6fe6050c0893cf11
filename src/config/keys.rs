//! The table of keys. Names in the environment, parsing, bounds, documentation and suggestions all
//! derive from it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::choice::Choice;
use super::value::{format_duration, format_size, parse_duration, parse_size};
use super::{Config, Secret};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// What it does, and what is traded.
    pub meaning: &'static str,
    kind: Kind,
}

/// Every key, in the order of the documentation.
pub fn keys() -> &'static [Key] {
    KEYS
}

impl Key {
    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The default, or what stands for there being none.
    pub fn default(&self) -> String {
        self.get(&Config::default())
    }

    /// Which values are taken.
    pub fn allowed(&self) -> String {
        match &self.kind {
            Kind::Address(_) => {
                "an address and port such as 127.0.0.1:8080, no host name".to_owned()
            }
            Kind::Algorithms(_) => "HS256, HS384, HS512, or several of them".to_owned(),
            Kind::Choice(field) => one_of(field(&mut Config::default()).words()),
            Kind::Connections(_) => "a number of at least 1".to_owned(),
            Kind::Count(_, range) => format!("a number from {} to {}", range.start(), range.end()),
            Kind::Duration(_, range) => {
                let (least, most) =
                    (format_duration(*range.start()), format_duration(*range.end()));
                format!("a duration from {least} to {most}")
            }
            Kind::Filter(_) => "a filter such as info or warn,fanfare=debug".to_owned(),
            Kind::Secret(_) => format!("at least {SECRET_BYTES_MIN} bytes of text"),
            Kind::Size(_, range) => {
                format!(
                    "a size from {} to {}",
                    format_size(*range.start()),
                    format_size(*range.end())
                )
            }
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
        matches!(self.kind, Kind::Secret(_))
    }

    /// The value in a configuration, as text; of a secret only whether there is one.
    pub fn get(&self, config: &Config) -> String {
        // The table holds one accessor a key, and it is for writing.
        let mut config = config.clone();
        match &self.kind {
            Kind::Address(field) => field(&mut config).to_string(),
            Kind::Algorithms(field) => {
                let names: Vec<_> = field(&mut config).iter().map(|it| format!("{it:?}")).collect();
                names.join(", ")
            }
            Kind::Choice(field) => field(&mut config).word().to_owned(),
            Kind::Connections(field) => field(&mut config).map_or_else(
                || "what the descriptor limit allows less 64".to_owned(),
                |n| n.to_string(),
            ),
            Kind::Count(field, _) => field(&mut config).to_string(),
            Kind::Duration(field, _) => format_duration(*field(&mut config)),
            Kind::Filter(field) => field(&mut config).clone(),
            Kind::Secret(field) => {
                if field(&mut config).is_some() { "(set)" } else { "(not set)" }.to_owned()
            }
            Kind::Size(field, _) => format_size(*field(&mut config)),
        }
    }

    /// Sets it from text; false if the text is not allowed.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        fn store<T>(field: &mut T, value: Option<T>) -> bool {
            value.map(|value| *field = value).is_some()
        }
        let parsed = match &self.kind {
            Kind::Address(field) => store(field(config), text.trim().parse().ok()),
            Kind::Algorithms(field) => store(field(config), algorithms(text)),
            Kind::Choice(field) => field(config).choose(text.trim()),
            Kind::Connections(field) => store(field(config), text.trim().parse().ok().map(Some)),
            Kind::Count(field, _) => store(field(config), text.trim().parse().ok()),
            Kind::Duration(field, _) => store(field(config), parse_duration(text)),
            Kind::Filter(field) => store(field(config), Some(text.to_owned())),
            Kind::Secret(field) => store(field(config), Some(Some(Secret::new(text)))),
            Kind::Size(field, _) => store(field(config), parse_size(text)),
        };
        parsed && self.is_in_bounds(config)
    }

    /// Whether the value in a configuration is allowed.
    pub(super) fn is_in_bounds(&self, config: &Config) -> bool {
        let mut config = config.clone();
        match &self.kind {
            Kind::Address(_) | Kind::Choice(_) | Kind::Filter(_) => true,
            Kind::Algorithms(field) => {
                let algorithms = field(&mut config);
                !algorithms.is_empty() && algorithms.iter().all(|it| HMAC.contains(it))
            }
            Kind::Connections(field) => field(&mut config).is_none_or(|count| count > 0),
            Kind::Count(field, range) | Kind::Size(field, range) => {
                range.contains(field(&mut config))
            }
            Kind::Duration(field, range) => range.contains(field(&mut config)),
            Kind::Secret(field) => field(&mut config)
                .as_ref()
                .is_none_or(|secret| secret.expose().len() >= SECRET_BYTES_MIN),
        }
    }

    const fn new(name: &'static str, meaning: &'static str, kind: Kind) -> Self {
        Self { name, meaning, kind }
    }
}

/// Where a key's value lies, how it is written, and its bounds.
#[derive(Debug)]
enum Kind {
    Address(fn(&mut Config) -> &mut SocketAddr),
    Algorithms(fn(&mut Config) -> &mut Vec<Algorithm>),
    Choice(fn(&mut Config) -> &mut dyn Choice),
    Connections(fn(&mut Config) -> &mut Option<usize>),
    Count(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
    Duration(fn(&mut Config) -> &mut Duration, RangeInclusive<Duration>),
    Filter(fn(&mut Config) -> &mut String),
    Secret(fn(&mut Config) -> &mut Option<Secret>),
    Size(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(words: &[&str]) -> String {
    match words {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

fn algorithms(text: &str) -> Option<Vec<Algorithm>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().ok()).collect()
}

/// What every variable begins with.
pub(super) const VARIABLE_PREFIX: &str = "FANFARE_";

/// Bytes of the shortest secret: 128 bits, if they are random.
pub(super) const SECRET_BYTES_MIN: usize = 16;

/// What a shared secret can sign; asymmetric algorithms would take it for a public key.
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

const MS: Duration = Duration::from_millis(1);
const TENTH: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAYS_30: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

static KEYS: &[Key] = &[
    Key::new(
        "server.bind",
        "Address and port to listen on. Put a proxy that speaks TLS in front of a public one.",
        Kind::Address(|c| &mut c.server.bind),
    ),
    Key::new(
        "server.shards",
        "Threads that own connections, by default one a core. More use more cores; fewer join more publishes into one send.",
        Kind::Count(|c| &mut c.server.shards, 1..=1024),
    ),
    Key::new(
        "auth.hmac_secret",
        "The key of tokens. Without it the server does not start; under 32 bytes it warns (RFC 7518 section 3.2).",
        Kind::Secret(|c| &mut c.auth.hmac_secret),
    ),
    Key::new(
        "auth.algorithms",
        "The algorithms that a token may name.",
        Kind::Algorithms(|c| &mut c.auth.algorithms),
    ),
    Key::new(
        "api.key",
        "What `X-API-Key` must carry. Without it the HTTP API is off.",
        Kind::Secret(|c| &mut c.api.key),
    ),
    Key::new(
        "channel.history_size",
        "Publications that a channel remembers, for those who were cut off; 0 is none.",
        Kind::Count(|c| &mut c.channel.history_size, 0..=1_000_000),
    ),
    Key::new(
        "channel.history_ttl",
        "How long a channel remembers each.",
        Kind::Duration(|c| &mut c.channel.history_ttl, TENTH..=DAYS_30),
    ),
    Key::new(
        "channel.recovery",
        "What a subscriber that was cut off is given: nothing, everything since its position (or word that this is not possible), or the latest publication alone.",
        Kind::Choice(|c| &mut c.channel.recovery),
    ),
    Key::new(
        "channel.presence",
        "Whether who is subscribed can be asked for.",
        Kind::Choice(|c| &mut c.channel.presence),
    ),
    Key::new(
        "channel.join_leave",
        "Whether subscribers are told of each other, by user or by connection: n of them cost n² deliveries.",
        Kind::Choice(|c| &mut c.channel.join_leave),
    ),
    Key::new(
        "channel.subscribe",
        "Who may subscribe: anyone who is connected, who has a token for the channel, or the users that its name lists after a `#`.",
        Kind::Choice(|c| &mut c.channel.subscribe),
    ),
    Key::new(
        "channel.publish",
        "Which connections may publish: none, subscribers, or those whose token says so. A backend always may.",
        Kind::Choice(|c| &mut c.channel.publish),
    ),
    Key::new(
        "chat.announce",
        "Whether users joining and leaving are told to all.",
        Kind::Choice(|c| &mut c.chat.announce),
    ),
    Key::new(
        "chat.announce_users",
        "Users present above which joins and leaves give way to a count, at most once a second: n of them cost n² deliveries.",
        Kind::Count(|c| &mut c.chat.announce_users, 0..=1_000_000),
    ),
    Key::new(
        "chat.linger",
        "How long after its last connection a user is still present, so that reloading a page is no leave.",
        Kind::Duration(|c| &mut c.chat.linger, Duration::ZERO..=HOUR),
    ),
    Key::new(
        "heartbeat.interval",
        "Time between pings to each connection. Shorter finds the dead sooner and keeps proxies' idle timers quiet; longer costs less.",
        Kind::Duration(|c| &mut c.heartbeat.interval, TENTH..=HOUR),
    ),
    Key::new(
        "heartbeat.timeout",
        "Time after a ping reached the kernel within which some frame must arrive; over it 3012.",
        Kind::Duration(|c| &mut c.heartbeat.timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.message_bytes",
        "Bytes of one message's payload, in or out; over it 1009 or 413.",
        Kind::Size(|c| &mut c.limits.message_bytes, 125..=256 * MIB),
    ),
    Key::new(
        "limits.message_timeout",
        "Time from a message's first byte to its last; over it 3501.",
        Kind::Duration(|c| &mut c.limits.message_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.outbox_bytes",
        "Bytes that may wait for one connection; over it 3008. More forgives longer stalls; less bounds what they cost.",
        Kind::Size(|c| &mut c.limits.outbox_bytes, KIB..=GIB),
    ),
    Key::new(
        "limits.outbox_age",
        "Age of the oldest byte that waits for one connection; over it 3008.",
        Kind::Duration(|c| &mut c.limits.outbox_age, TENTH..=HOUR),
    ),
    Key::new(
        "limits.memory",
        "Bytes that outboxes, ring and partial messages hold together; over it the largest laggard is closed with 3008 first.",
        Kind::Size(|c| &mut c.limits.memory, MIB..=1024 * GIB),
    ),
    Key::new(
        "limits.ring_messages",
        "Publishes that wait for the slowest shard; over it publishing connections wait and the API answers 503.",
        Kind::Count(|c| &mut c.limits.ring_messages, 4..=1 << 20),
    ),
    Key::new(
        "limits.ring_bytes",
        "Bytes of those publishes, each counting 64 more.",
        Kind::Size(|c| &mut c.limits.ring_bytes, 16 * KIB..=512 * GIB),
    ),
    Key::new(
        "limits.publish_wait",
        "Time a publishing connection waits for room in the ring before error 111.",
        Kind::Duration(|c| &mut c.limits.publish_wait, MS..=MINUTE),
    ),
    Key::new(
        "limits.connections",
        "Open sockets; over it accept answers 503. The default follows the descriptor limit, raised to its hard bound at start.",
        Kind::Connections(|c| &mut c.limits.connections),
    ),
    Key::new(
        "limits.inbox",
        "Arrivals that wait for one shard; when all shards are full accept answers 503.",
        Kind::Count(|c| &mut c.limits.inbox, 1..=1 << 20),
    ),
    Key::new(
        "limits.handshake_timeout",
        "Time from a request's first byte (on a new connection from accept) to its last; over it 408.",
        Kind::Duration(|c| &mut c.limits.handshake_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.keepalive_timeout",
        "Time an HTTP connection may idle between requests.",
        Kind::Duration(|c| &mut c.limits.keepalive_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.header_bytes",
        "Bytes of a request's line and headers; over it 431.",
        Kind::Size(|c| &mut c.limits.header_bytes, 8 * KIB..=MIB),
    ),
    Key::new(
        "limits.request_bytes",
        "Bytes of an API request's body; over it 413.",
        Kind::Size(|c| &mut c.limits.request_bytes, KIB..=GIB),
    ),
    Key::new(
        "limits.close_timeout",
        "Time a closing connection may take to answer before its socket is cut.",
        Kind::Duration(|c| &mut c.limits.close_timeout, TENTH..=MINUTE),
    ),
    Key::new(
        "drain.spread",
        "Time over which a draining server closes its connections, so that they do not all return at once.",
        Kind::Duration(|c| &mut c.drain.spread, Duration::ZERO..=HOUR),
    ),
    Key::new(
        "drain.timeout",
        "Time after which a draining server ends, whatever is left.",
        Kind::Duration(|c| &mut c.drain.timeout, TENTH..=HOUR),
    ),
    Key::new(
        "log.filter",
        "What is logged, to standard error.",
        Kind::Filter(|c| &mut c.log.filter),
    ),
];
