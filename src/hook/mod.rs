//! Hooks: the application decides what peers may do, and is told who comes and goes.
//!
//! An embedder implements [`Hooks`] and gives it to [`Hub::start_with`](crate::Hub::start_with).
//! With `hook.url` set, [`Hub::start`](crate::Hub::start) has one that asks and tells over HTTP;
//! docs/hooks.md shows every byte of that.

mod application;
mod courier;
mod http;
mod notices;
mod wire;

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use application::{Answer, Application};
pub(crate) use courier::Courier;
pub(crate) use http::HttpHooks;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::close::CloseReason;
use crate::config::HookCall;
use crate::protocol::json;
use crate::user::UserId;

/// What an application decides and is told.
///
/// ```
/// use fanfare::hook::{Act, Consent, Decision, Hooks, Question, Refusal};
/// use fanfare::{Config, Hub};
///
/// struct NoShouting;
///
/// impl Hooks for NoShouting {
///     fn decide(&self, question: &Question<'_>) -> Option<Decision> {
///         let Act::Publish { data, .. } = question.act else { return None };
///         let shouts = data.get().contains('!');
///         Some(Box::pin(async move {
///             if shouts { Err(Refusal::error(1000, "no shouting")) } else { Ok(Consent::default()) }
///         }))
///     }
/// }
///
/// let hub = Hub::start_with(Config::default(), NoShouting)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Hooks: Send + Sync + 'static {
    /// Says yes or no to what a peer wants; `None` is no say at all, and costs nothing.
    ///
    /// A hook narrows what the settings and tokens allow, and never widens it: what they refuse is
    /// not asked. The one exception is [`Consent::user`].
    ///
    /// It is called, and its future polled, on the peer's shard, so neither may block: work belongs
    /// on a runtime of the application's own. Meanwhile the peer is read no further, for at most
    /// `hook.timeout`; then `hook.on_failure` decides. The future is dropped if the peer goes.
    fn decide(&self, question: &Question<'_>) -> Option<Decision> {
        let _ = question;
        None
    }

    /// Takes word of what happened on this node, and with a broker of users on any, in that order, one call at a
    /// time.
    ///
    /// After an error, or without an end within `hook.timeout`, the same notices come again after a
    /// pause that grows to ten seconds: at least once each, until `hook.queue` is full and the oldest
    /// are dropped. A process that ends tells nobody of who was there.
    fn notify(&self, notices: &[Notice]) -> Delivery {
        let _ = notices;
        Box::pin(ready(Ok(())))
    }
}

/// The answer to a question, once it is there.
pub type Decision = Pin<Box<dyn Future<Output = Result<Consent, Refusal>> + Send>>;

/// The end of telling something.
pub type Delivery = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// What a peer wants, and whose it is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Question<'a> {
    /// What names the connection, as presence and the API do; empty for a peer of the chat.
    pub client: &'a str,
    /// Whose it is; `None` is an anonymous user, or one that nobody has named yet.
    pub user: Option<&'a UserId>,
    /// What it wants.
    pub act: Act<'a>,
}

/// What a peer wants. Data is JSON as the peer wrote it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Act<'a> {
    /// To connect.
    Connect {
        /// What it says of itself.
        data: Option<&'a RawValue>,
        /// The name of its SDK.
        name: &'a str,
        /// The version of that.
        version: &'a str,
    },
    /// To subscribe to a channel. Those that a token names or the server makes are not asked about.
    Subscribe {
        /// The channel.
        channel: &'a str,
        /// What it says for it.
        data: Option<&'a RawValue>,
    },
    /// To publish to a channel; what is said in the chat is a publish to `chat.channel`.
    Publish {
        /// The channel.
        channel: &'a str,
        /// What would go out.
        data: &'a RawValue,
    },
    /// To tell the application something, without a reply.
    Message {
        /// What.
        data: &'a RawValue,
    },
    /// To have something done.
    Rpc {
        /// What.
        method: &'a str,
        /// With what.
        data: Option<&'a RawValue>,
    },
}

impl Act<'_> {
    /// The word for it in `hook.calls`.
    pub(crate) fn call(&self) -> HookCall {
        match self {
            Self::Connect { .. } => HookCall::Connect,
            Self::Subscribe { .. } => HookCall::Subscribe,
            Self::Publish { .. } => HookCall::Publish,
            Self::Message { .. } => HookCall::Message,
            Self::Rpc { .. } => HookCall::Rpc,
        }
    }
}

/// A yes, and what comes with it. What an act has no use for is passed over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Consent {
    /// Connect: whose a connection is that has no token, or one without a user.
    #[serde(deserialize_with = "wire::user")]
    pub user: Option<UserId>,
    /// Connect, subscribe: what others see of the connection, on all channels or on that one.
    pub info: Option<Box<RawValue>>,
    /// Connect, subscribe: what the peer is told. Publish: what goes out instead; at most
    /// the namespace's `max_bytes`, in the chat `limits.message_bytes`. Rpc: the reply.
    pub data: Option<Box<RawValue>>,
    /// Connect: channels that the peer is subscribed to by the server.
    pub channels: Vec<String>,
    /// Connect: the same, with `info`, `data` and `allow` of each.
    pub subs: BTreeMap<String, Self>,
    /// Subscribe: `pub` is the right to publish where `publish` is `token`.
    pub allow: Vec<String>,
    /// Connect, subscribe: when the connection closes with 3005, or the subscription ends with
    /// 2501. Clients come back then, and the question with them.
    #[serde(deserialize_with = "wire::time", rename = "expire_at")]
    pub expires: Option<SystemTime>,
}

impl Consent {
    /// The same without line breaks between the tokens of its JSON.
    fn in_one_line(mut self) -> Self {
        self.info = self.info.map(json::one_line);
        self.data = self.data.map(json::one_line);
        let subs = self.subs.into_iter();
        self.subs = subs.map(|(name, consent)| (name, consent.in_one_line())).collect();
        self
    }
}

/// A no.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer's command is answered with an error, and the peer may go on.
    Error {
        /// 400 to 1999 are for applications; the others are the Centrifuge protocol's own.
        code: u32,
        /// What the peer is told.
        message: String,
        /// Whether the same command may succeed later.
        temporary: bool,
    },
    /// The connection closes.
    Close(CloseReason),
    /// There was no answer: `hook.on_failure` decides.
    Failed(Failure),
}

impl Refusal {
    /// An error that lasts.
    pub fn error(code: u32, message: impl Into<String>) -> Self {
        Self::Error { code, message: message.into(), temporary: false }
    }
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It is not what docs/hooks.md says.
    #[error("the application's answer is not understood; send what docs/hooks.md shows")]
    Answer,
    /// Another status than 200 to 299.
    #[error("the application answers {0}; look at its log")]
    Status(u16),
    /// None within `hook.timeout`.
    #[error("the application does not answer within hook.timeout")]
    Timeout,
    /// The connection cannot be made, or broke.
    #[error(
        "the application cannot be reached; check hook.url, and its certificate if it is one of https"
    )]
    Unreachable,
}

impl Failure {
    /// The value of the metric label `reason`.
    fn label(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Word of something that happened, told by this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Notice {
    /// Counts from 1 with the process, without a gap: one that comes again has the same, and one
    /// that is lacking was dropped.
    pub number: u64,
    /// When it happened.
    pub at: SystemTime,
    /// What.
    pub change: Change,
}

/// What happened: to channels on this node, to users on all that share a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A channel has its first subscriber.
    ChannelOccupied(Arc<str>),
    /// A channel lost its last subscriber.
    ChannelVacated(Arc<str>),
    /// A user's first connection came.
    UserJoined(UserId),
    /// A user's last connection went, `chat.linger` ago.
    UserLeft(UserId),
}

impl Change {
    /// The word for it.
    fn label(&self) -> &'static str {
        match self {
            Self::ChannelOccupied(_) => "channel_occupied",
            Self::ChannelVacated(_) => "channel_vacated",
            Self::UserJoined(_) => "user_joined",
            Self::UserLeft(_) => "user_left",
        }
    }

    /// The word in `hook.calls` for being told of it.
    fn call(&self) -> HookCall {
        match self {
            Self::ChannelOccupied(_) | Self::ChannelVacated(_) => HookCall::Channels,
            Self::UserJoined(_) | Self::UserLeft(_) => HookCall::Users,
        }
    }
}
