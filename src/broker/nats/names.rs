//! What nodes subscribe to at NATS, and where there is what it keeps.
//!
//! A name of ours is one token of a subject, so that distinct names are distinct subjects whatever they are
//! made of. What is stored under `h` or `k` is heard under `t`, where also goes what is not stored.

use std::sync::Arc;

use crate::broker::topic::Topic;
use crate::user::UserId;

/// Gives names under a prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    chat: Arc<str>,
    /// This run of this node.
    uid: Arc<str>,
}

/// A stream of JetStream's, one of each for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// What channels with history remember, and where they stand.
    History,
    /// What is published under idempotency keys to channels without history.
    Keys,
    /// Leases, and who clears away which.
    Nodes,
    /// Users who are present, one subject each.
    Users,
    /// Connections on channels.
    Clients,
}

impl Store {
    pub(super) const ALL: [Self; 5] =
        [Self::History, Self::Keys, Self::Nodes, Self::Users, Self::Clients];

    /// What its subjects have after the prefix.
    fn letter(self) -> char {
        match self {
            Self::History => 'h',
            Self::Keys => 'k',
            Self::Nodes => 'n',
            Self::Users => 'u',
            Self::Clients => 'p',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Keys => "keys",
            Self::Nodes => "nodes",
            Self::Users => "users",
            Self::Clients => "clients",
        }
    }
}

impl Names {
    pub(super) fn new(prefix: &str, chat: &str, uid: &str) -> Self {
        Self { prefix: token(prefix), chat: chat.into(), uid: uid.into() }
    }

    /// What a stream is called.
    pub(super) fn stream(&self, store: Store) -> String {
        format!("{}-v1-{}", self.prefix, store.word())
    }

    /// All that is kept in a stream.
    pub(super) fn subjects(&self, store: Store) -> String {
        self.under(store.letter(), ">")
    }

    /// What is heard of what is stored.
    pub(super) fn heard(&self) -> String {
        self.under(HEARD, ">")
    }

    /// Where a topic is heard.
    pub(super) fn topic(&self, topic: &Topic) -> String {
        self.under(HEARD, &self.suffix(topic))
    }

    /// Where that is stored of a topic that goes through a stream.
    pub(super) fn stored(&self, store: Store, topic: &Topic) -> String {
        self.under(store.letter(), &self.suffix(topic))
    }

    /// Where a channel's publications are stored.
    pub(super) fn history(&self, channel: &str) -> String {
        let topic =
            if *channel == *self.chat { Topic::All } else { Topic::Channel(channel.into()) };
        self.stored(Store::History, &topic)
    }

    pub(super) fn lease(&self, lease: &str) -> String {
        self.under(Store::Nodes.letter(), &format!("lease.{}", token(lease)))
    }

    pub(super) fn leases(&self) -> String {
        self.under(Store::Nodes.letter(), "lease.*")
    }

    pub(super) fn claim(&self, lease: &str) -> String {
        self.under(Store::Nodes.letter(), &format!("claim.{}", token(lease)))
    }

    /// What is stored there tells the time.
    pub(super) fn clock(&self) -> String {
        self.under(Store::Nodes.letter(), "clock")
    }

    pub(super) fn user(&self, user: &UserId) -> String {
        self.under(Store::Users.letter(), &token(&user.to_string()))
    }

    /// A connection on a channel.
    pub(super) fn client(&self, lease: &str, channel: &str, client: &str) -> String {
        let [lease, channel, client] = [lease, channel, client].map(token);
        self.under(Store::Clients.letter(), &format!("client.{lease}.{channel}.{client}"))
    }

    /// The connections on a channel.
    pub(super) fn clients_on(&self, channel: &str) -> String {
        self.under(Store::Clients.letter(), &format!("client.*.{}.*", token(channel)))
    }

    /// The connections of a node.
    pub(super) fn clients_of(&self, lease: &str) -> String {
        self.under(Store::Clients.letter(), &format!("client.{}.>", token(lease)))
    }

    /// A user on a channel.
    pub(super) fn user_on(&self, channel: &str, user: &str) -> String {
        self.under(Store::Clients.letter(), &format!("user.{}.{}", token(channel), token(user)))
    }

    fn suffix(&self, topic: &Topic) -> String {
        match topic {
            Topic::All => "all".to_owned(),
            Topic::Channel(channel) => format!("channel.{}", token(channel)),
            Topic::Pulse(number) => format!("pulse.{}.{number}", token(&self.uid)),
            Topic::Node(uid) => format!("node.{}", token(uid)),
            Topic::User(user) => format!("user.{}", token(&user.to_string())),
        }
    }

    fn under(&self, kind: char, rest: &str) -> String {
        format!("{}.v1.{kind}.{rest}", self.prefix)
    }
}

/// An idempotency key of a channel, as the server is to compare it.
pub(super) fn message_id(channel: &str, key: &str) -> String {
    format!("{}/{}", token(channel), token(key))
}

/// What the last token of a subject stands for.
pub(super) fn last(subject: &str) -> Option<String> {
    untoken(subject.rsplit('.').next()?)
}

/// What the last tokens but one and the last stand for.
pub(super) fn last_two(subject: &str) -> Option<(String, String)> {
    let mut tokens = subject.rsplit('.');
    let (last, before) = (untoken(tokens.next()?)?, untoken(tokens.next()?)?);
    Some((before, last))
}

/// Under which lease a connection on a channel stands.
pub(super) fn lease_of(subject: &str) -> Option<String> {
    untoken(subject.rsplit('.').nth(2)?)
}

/// A name as one token of a subject; not empty, and without what has a meaning there.
fn token(name: &str) -> String {
    if name.is_empty() {
        return EMPTY.to_owned();
    }
    name.bytes().fold(String::with_capacity(name.len()), |mut token, byte| {
        match byte {
            b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => token.push(byte.into()),
            _ => token.push_str(&format!("={byte:02X}")),
        }
        token
    })
}

fn untoken(token: &str) -> Option<String> {
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.strip_suffix(EMPTY).unwrap_or(token).bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'=' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

/// Topics of all kinds are heard there.
const HEARD: char = 't';

/// The token of an empty name: no other is.
const EMPTY: &str = "=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_token_and_comes_back() {
        let names = ["", "a", "news:sport", "a.b", "a b", "*", ">", "=", "=41", "é", "A", "\n"];
        let tokens = names.map(token);
        for (name, token) in names.iter().zip(&tokens) {
            assert!(!token.is_empty() && !token.contains(['.', ' ', '*', '>', '\n']), "{token}");
            assert_eq!(untoken(token).as_deref(), Some(*name));
            assert_eq!(tokens.iter().filter(|other| *other == token).count(), 1);
        }
    }

    #[test]
    fn what_is_stored_of_a_topic_is_heard_at_the_topic() {
        let names = Names::new("my.app", "chat", "n:1");
        assert_eq!(names.topic(&Topic::All), "my=2Eapp.v1.t.all");
        assert_eq!(names.history("chat"), "my=2Eapp.v1.h.all");
        assert_eq!(names.history("a:b"), "my=2Eapp.v1.h.channel.a=3Ab");
        assert_eq!(names.topic(&Topic::Channel("a:b".into())), "my=2Eapp.v1.t.channel.a=3Ab");
        assert_eq!(names.topic(&Topic::Pulse(0)), "my=2Eapp.v1.t.pulse.n=3A1.0");
        assert_eq!(names.stream(Store::Users), "my=2Eapp-v1-users");
        assert_eq!(last_two(&names.client("n.0", "a:b", "c")), Some(("a:b".into(), "c".into())));
    }
}
