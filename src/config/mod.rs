//! Every setting, with meaning and default; bounds and trades stand in the table of keys.
//!
//! [`Config`] is what the program needs; [`load`] builds it from a file, the environment and flags.
//! docs/configuration.md lists the keys.

mod broker;
mod check;
mod choice;
mod hook;
mod key;
mod load;
mod namespace;
mod setting;
mod table;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use broker::{Broker, BrokerKind, BrokerReady, Nats, Redis, RedisMode};
pub use check::ConfigError;
use choice::choice;
pub use hook::{Hook, HookCall, OnFailure};
pub use key::Key;
pub use load::{Loaded, Origin, load};
pub use namespace::{JoinLeave, Namespace, Publish, Recovery, Subscribe, Switch};
pub use setting::Setting;

/// Everything that can be set. `Config::default()` is complete but for the secrets, which have no
/// default: without `auth.hmac_secret` every token is invalid.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// Who may connect.
    pub auth: Auth,
    /// Who may push over HTTP.
    pub api: Api,
    /// Channels outside of any namespace.
    pub channel: Namespace,
    /// Channels whose name begins with the namespace's and a colon.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The chat endpoint.
    pub chat: Chat,
    /// How dead peers are found.
    pub heartbeat: Heartbeat,
    /// How much of everything.
    pub limits: Limits,
    /// How the server ends.
    pub drain: Drain,
    /// The application that decides and is told.
    pub hook: Hook,
    /// How nodes meet.
    pub broker: Broker,
    /// Where the server listens.
    pub server: Server,
    /// What is logged.
    pub log: Log,
}

impl Config {
    /// The options of a channel; `None` if its namespace is unknown.
    pub(crate) fn namespace(&self, channel: &str) -> Option<&Namespace> {
        match channel.split_once(':') {
            None => Some(&self.channel),
            Some((namespace, _)) => self.namespaces.get(namespace),
        }
    }
}

/// `server.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server {
    /// Address and port to listen on.
    pub bind: SocketAddr,
    /// Where the API, metrics, health and the page listen instead, if anywhere.
    pub internal_bind: Option<SocketAddr>,
    /// Origins whose pages may read answers across origins, credentials included.
    pub allowed_origins: Vec<String>,
    /// Threads that own connections. More use more cores; fewer join more publishes per send.
    pub shards: usize,
    /// Serves the page at `/`, for development only. Set by `fanfare dev`, by no key.
    pub dev: bool,
}

/// `auth.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Auth {
    /// The key of HMAC tokens.
    pub hmac_secret: Option<Secret>,
    /// The algorithms a token may name: `HS256`, `HS384`, `HS512`.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// What those without a token may do.
    pub anonymous: Anonymous,
    /// Whether each user is subscribed to a channel of its own, `#` and the user's name.
    pub personal_channel: Switch,
    /// The namespace of those channels; empty if they are outside of any.
    pub personal_namespace: String,
}

choice! {
    /// `auth.anonymous`.
    pub enum Anonymous {
        /// They may not connect.
        "off" => Off,
        /// They may connect, and subscribe in namespaces that allow it.
        "read" => Read,
    }
}

/// `api.*`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Api {
    /// The key that `X-API-Key` must carry. Without it the API is off.
    pub key: Option<Secret>,
}

/// `chat.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chat {
    /// The channel that the chat is: what is said in either is told in both.
    pub channel: String,
    /// Whether users joining and leaving are told to all.
    pub announce: Announce,
    /// Users present above which joins and leaves give way to a count at most once a second:
    /// each is told to everyone, so a storm of n costs n² deliveries.
    pub announce_users: usize,
    /// How long after its last connection a user is still present, so that a reload is no leave.
    pub linger: Duration,
}

choice! {
    /// `chat.announce`.
    pub enum Announce {
        /// Nothing is told.
        "off" => Off,
        /// A user's first connection and the end of its last are told to all.
        "user" => User,
    }
}

/// `heartbeat.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Heartbeat {
    /// Time between pings to each connection. Shorter finds the dead sooner and keeps proxies'
    /// idle timers (commonly 60 s) from firing; longer costs less.
    pub interval: Duration,
    /// Time after a ping reached the kernel within which some frame must arrive.
    pub timeout: Duration,
}

/// `limits.*`: each bounds memory, time or work, and says what happens at the bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes that came from the broker and wait for room in the ring, each message counting 64 more; over
    /// it the node connects anew, and reads what it lacks.
    pub broker_bytes: usize,
    /// Bytes of a channel's name; over it error 107.
    pub channel_bytes: usize,
    /// Channels of this node; over it error 106.
    pub channels: usize,
    /// Time a closing connection may take to answer, after which its socket is cut.
    pub close_timeout: Duration,
    /// Open sockets; over it accept answers 503. `None`: what the descriptor limit allows less 64.
    pub connections: Option<usize>,
    /// Time from a request's first byte (on a new connection from accept) to its last.
    pub handshake_timeout: Duration,
    /// Bytes of a request's line and headers; over it 431.
    pub header_bytes: usize,
    /// Bytes that the histories of all channels hold together; over it the publication that goes is
    /// the oldest of the channel that was published to.
    pub history_bytes: usize,
    /// Idempotency keys of publishes that are remembered; over it the oldest is forgotten.
    pub idempotency_keys: usize,
    /// Arrivals that wait for one shard; when all shards are full accept answers 503.
    pub inbox: usize,
    /// Time an HTTP connection may idle between requests.
    pub keepalive_timeout: Duration,
    /// Bytes that outboxes, ring and partial messages may hold together; over it the largest
    /// laggard is closed with 3008 first.
    pub memory: usize,
    /// Bytes of one message's payload, in or out; over it 1009 or 413.
    pub message_bytes: usize,
    /// Time a peer may take from a message's first byte to its last; over it 3501.
    pub message_timeout: Duration,
    /// Age of the oldest byte in a connection's outbox; over it 3008.
    pub outbox_age: Duration,
    /// Bytes in a connection's outbox; over it 3008.
    pub outbox_bytes: usize,
    /// Time a publishing connection waits for room in the ring before error 111.
    pub publish_wait: Duration,
    /// Bytes of an API request's body; over it 413.
    pub request_bytes: usize,
    /// Bytes of payload in the ring, each publish counting 64 more; over it `Overloaded`.
    pub ring_bytes: usize,
    /// Publishes in the ring; over it `Overloaded`.
    pub ring_messages: usize,
    /// Channels that one connection is subscribed to; over it error 106.
    pub subscriptions: usize,
}

/// `drain.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drain {
    /// Time over which connections are closed, so that clients do not all return at once.
    pub spread: Duration,
    /// Time after which the process ends whatever is left.
    pub timeout: Duration,
}

/// `log.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Log {
    /// A filter such as `info` or `warn,fanfare=debug`.
    pub filter: String,
}

/// A key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes of a key.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that must compare or sign with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Chat {
    /// How long a user stays present; of no use where nobody is told, neither peers nor the
    /// application.
    pub(crate) fn linger(&self, tells_application: bool) -> Duration {
        match self.announce {
            Announce::Off if !tells_application => Duration::ZERO,
            Announce::Off | Announce::User => self.linger,
        }
    }
}

impl Limits {
    /// Bytes that one answer may have, and that may wait before another is made: half an outbox, as
    /// the other half may be waiting already.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.outbox_bytes / 2
    }
}

impl Default for Server {
    fn default() -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX);
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            internal_bind: None,
            allowed_origins: Vec::new(),
            shards,
            dev: false,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            hmac_secret: None,
            algorithms: vec![jsonwebtoken::Algorithm::HS256],
            anonymous: Anonymous::Off,
            personal_channel: Switch::Off,
            personal_namespace: String::new(),
        }
    }
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            channel: "chat".to_owned(),
            announce: Announce::User,
            announce_users: 1000,
            linger: Duration::from_secs(2),
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(25), timeout: Duration::from_secs(10) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            broker_bytes: 64 << 20,
            channel_bytes: 255,
            channels: 1 << 20,
            close_timeout: Duration::from_secs(5),
            connections: None,
            handshake_timeout: Duration::from_secs(10),
            header_bytes: 16 << 10,
            history_bytes: 256 << 20,
            idempotency_keys: 100_000,
            inbox: 8192,
            keepalive_timeout: Duration::from_secs(75),
            memory: 512 << 20,
            message_bytes: 64 << 10,
            message_timeout: Duration::from_secs(30),
            outbox_age: Duration::from_secs(10),
            outbox_bytes: 1 << 20,
            publish_wait: Duration::from_secs(5),
            request_bytes: 1 << 20,
            ring_bytes: 16 << 20,
            ring_messages: 16_384,
            subscriptions: 128,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { spread: Duration::from_secs(2), timeout: Duration::from_secs(10) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info,async_nats=off".to_owned() }
    }
}

/// As many shards as `limits.memory` feeds by default.
const SHARDS_MAX: usize = 256;
