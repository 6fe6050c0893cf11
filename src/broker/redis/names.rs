//! The names of topics at Redis, and of what it keeps.

use std::sync::Arc;

use crate::broker::topic::Topic;
use crate::user::UserId;

/// Gives names under a prefix. What must be in one order, and so on one server of a cluster, has its
/// tag in braces in common: a channel's stream and topic, and all that is for everyone or for users.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `<prefix>:v1:`, after the version of what nodes tell each other.
    prefix: String,
    chat: Arc<str>,
    /// This run of this node.
    uid: Arc<str>,
}

impl Names {
    pub(super) fn new(prefix: &str, chat: &str, uid: &str) -> Self {
        Self { prefix: format!("{prefix}:v1:"), chat: chat.into(), uid: uid.into() }
    }

    /// What a topic is called.
    pub(super) fn topic(&self, topic: &Topic) -> String {
        let prefix = &self.prefix;
        match topic {
            Topic::All => format!("{prefix}{ALL}"),
            Topic::Channel(channel) => format!("{prefix}{}", self.tag(channel)),
            Topic::Pulse(number) => format!("{prefix}{{pulse{number}}}:{}", self.uid),
            Topic::Node(uid) => format!("{prefix}{ALL}:node:{uid}"),
            Topic::User(user) => format!("{prefix}{ALL}:user:{user}"),
        }
    }

    /// The topic of a name; `None` if it is none of ours.
    pub(super) fn parse(&self, name: &str) -> Option<Topic> {
        let name = name.strip_prefix(&self.prefix)?;
        if let Some(name) = name.strip_prefix(ALL) {
            return match name.split_once(':') {
                None => name.is_empty().then_some(Topic::All),
                Some(("", name)) => match name.split_once(':')? {
                    ("user", user) => UserId::parse(user).ok().map(Topic::User),
                    ("node", uid) => Some(Topic::Node(uid.into())),
                    _ => None,
                },
                Some(_) => None,
            };
        }
        if let Some(name) = name.strip_prefix("{pulse") {
            let (number, uid) = name.split_once("}:")?;
            return number.parse().ok().filter(|_| *uid == *self.uid).map(Topic::Pulse);
        }
        let channel = name.strip_prefix("{c:")?.strip_suffix('}')?;
        Some(Topic::Channel(channel.into()))
    }

    /// Where a channel's stream stands.
    pub(super) fn position(&self, channel: &str) -> String {
        self.of_channel(channel, "meta")
    }

    /// A channel's stream.
    pub(super) fn stream(&self, channel: &str) -> String {
        self.of_channel(channel, "stream")
    }

    /// What a publish under an idempotency key was answered.
    pub(super) fn answer(&self, channel: &str, key: &str) -> String {
        self.of_channel(channel, "key:") + key
    }

    /// The connections on a channel, by lease.
    pub(super) fn clients_on(&self, channel: &str) -> String {
        self.of_channel(channel, "present")
    }

    /// The users on a channel, by lease.
    pub(super) fn users_on(&self, channel: &str) -> String {
        self.of_channel(channel, "users")
    }

    /// All leases, by when they end.
    pub(super) fn leases(&self) -> String {
        self.of_cluster("leases")
    }

    /// What nodes say of themselves, by lease.
    pub(super) fn infos(&self) -> String {
        self.of_cluster("infos")
    }

    /// What tells all this from what was before everything was lost.
    pub(super) fn epoch(&self) -> String {
        self.of_cluster("epoch")
    }

    /// All users.
    pub(super) fn users(&self) -> String {
        self.of_cluster("users")
    }

    /// The users that stand under a lease.
    pub(super) fn users_of(&self, lease: &str) -> String {
        self.of_cluster(&format!("users:{lease}"))
    }

    /// The channels on which connections stand under a lease.
    pub(super) fn channels_of(&self, lease: &str) -> String {
        self.of_cluster(&format!("channels:{lease}"))
    }

    /// That a node clears away what stands under a lease.
    pub(super) fn claim(&self, lease: &str) -> String {
        self.of_cluster(&format!("claim:{lease}"))
    }

    fn of_channel(&self, channel: &str, what: &str) -> String {
        format!("{}{}:{what}", self.prefix, self.tag(channel))
    }

    fn of_cluster(&self, what: &str) -> String {
        format!("{}{ALL}:cluster:{what}", self.prefix)
    }

    fn tag(&self, channel: &str) -> String {
        if *channel == *self.chat { ALL.to_owned() } else { format!("{{c:{channel}}}") }
    }
}

/// The tag of what is for everyone, and of all that must keep its order with that.
const ALL: &str = "{all}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_known_by_its_name() {
        let names = Names::new("app", "chat", "n1");
        for (topic, name) in [
            (Topic::All, "app:v1:{all}"),
            (Topic::Channel("a:{b}".into()), "app:v1:{c:a:{b}}"),
            (Topic::Pulse(7), "app:v1:{pulse7}:n1"),
            (Topic::Node("n2".into()), "app:v1:{all}:node:n2"),
            (Topic::User(42.into()), "app:v1:{all}:user:42"),
            (Topic::User(UserId::parse("é:x").unwrap()), "app:v1:{all}:user:é:x"),
        ] {
            assert_eq!(names.topic(&topic), name);
            assert_eq!(names.parse(name), Some(topic));
        }
        for name in [
            "",
            "app:v1:",
            "other:v1:{all}",
            "app:v1:{all}é",
            "app:v1:{all}:user:",
            "app:v1:{pulse7}:n2",
        ] {
            assert_eq!(names.parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_chat_keeps_its_stream_where_its_topic_is() {
        let names = Names::new("app", "chat", "n1");
        assert_eq!(names.stream("chat"), "app:v1:{all}:stream");
        assert_eq!(names.stream("news"), "app:v1:{c:news}:stream");
    }
}
