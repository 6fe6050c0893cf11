//! What channels may do: `channel.*` for those without a namespace, `namespace.<name>.*` for the
//! channels of that name, a colon, and more.

use std::time::Duration;

use super::Limits;
use super::choice::choice;
use crate::channel::history::Window;

/// The options of a namespace, and of the channels outside of any.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Namespace {
    /// Publications that a channel remembers; 0 is none.
    pub history_size: usize,
    /// How long it remembers each.
    pub history_ttl: Duration,
    /// What a subscriber that was cut off is given.
    pub recovery: Recovery,
    /// Whether who is subscribed can be asked for.
    pub presence: Switch,
    /// Whether subscribers are told of each other.
    pub join_leave: JoinLeave,
    /// Who may subscribe.
    pub subscribe: Subscribe,
    /// Who may publish over a connection.
    pub publish: Publish,
    /// Whether those without a user may subscribe, where `auth.anonymous` lets them in and
    /// `subscribe` does not ask for more than they have.
    pub anonymous: Switch,
    /// Subscribers of one channel; 0 is no limit.
    pub max_subscribers: usize,
    /// Bytes of one publication's data; 0 is `limits.message_bytes`.
    pub max_bytes: usize,
}

impl Namespace {
    /// Whether it is noted who is subscribed.
    pub(crate) fn counts_presence(&self) -> bool {
        self.presence == Switch::On || self.join_leave != JoinLeave::Off
    }

    /// Bytes that a publication's data may have.
    pub(crate) fn max_bytes(&self, limits: &Limits) -> usize {
        if self.max_bytes > 0 { self.max_bytes } else { limits.message_bytes }
    }

    /// How much a channel remembers.
    pub(crate) fn window(&self) -> Window {
        Window { size: self.history_size, ttl: self.history_ttl }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            history_size: 0,
            history_ttl: Duration::from_secs(5 * 60),
            recovery: Recovery::Off,
            presence: Switch::Off,
            join_leave: JoinLeave::Off,
            subscribe: Subscribe::Token,
            publish: Publish::Nobody,
            anonymous: Switch::Off,
            max_subscribers: 0,
            max_bytes: 0,
        }
    }
}

choice! {
    /// `recovery`.
    pub enum Recovery {
        /// Nothing.
        "off" => Off,
        /// Everything since its position, or word that this is not possible.
        "stream" => Stream,
        /// The latest publication.
        "cache" => Cache,
    }
}

choice! {
    /// A feature that is off or on.
    pub enum Switch {
        /// It is off.
        "off" => Off,
        /// It is on.
        "on" => On,
    }
}

choice! {
    /// `join_leave`.
    pub enum JoinLeave {
        /// Nothing is told.
        "off" => Off,
        /// A user's first connection on the channel, and the end of its last.
        "user" => User,
        /// Each connection.
        "client" => Client,
    }
}

choice! {
    /// `subscribe`.
    pub enum Subscribe {
        /// Whoever is connected; those without a user if `anonymous` is on.
        "anyone" => Anyone,
        /// Whoever has a token for the channel, or whose connection token names it.
        "token" => Token,
        /// The users that the channel's name lists after a `#`, separated by commas.
        "named" => Named,
    }
}

choice! {
    /// `publish`.
    pub enum Publish {
        /// No connection; a backend always may.
        "nobody" => Nobody,
        /// Subscribers of the channel.
        "subscribers" => Subscribers,
        /// Subscribers whose token for the channel says so.
        "token" => Token,
    }
}
