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
            Topic::User(user) => format!("{prefix}{ALL}:user:{user}"),
        }
    }

    /// The topic of a name; `None` if it is none of ours.
    pub(super) fn parse(&self, name: &str) -> Option<Topic> {
        let name = name.strip_prefix(&self.prefix)?;
        if let Some(name) = name.strip_prefix(ALL) {
            return match name.strip_prefix(":user:") {
                None => name.is_empty().then_some(Topic::All),
                Some(user) => UserId::parse(user).ok().map(Topic::User),
            };
        }
        if let Some(name) = name.strip_prefix("{pulse") {
            let (number, uid) = name.split_once("}:")?;
            return number.parse().ok().filter(|_| *uid == *self.uid).map(Topic::Pulse);
        }
        let channel = name.strip_prefix("{c:")?.strip_suffix('}')?;
        Some(Topic::Channel(channel.into()))
    }

    /// What is kept of a channel under some name.
    pub(super) fn key(&self, channel: &str, what: &str) -> String {
        format!("{}{}:{what}", self.prefix, self.tag(channel))
    }

    /// What is kept of the cluster under some name.
    pub(super) fn common(&self, what: &str) -> String {
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
        assert_eq!(names.key("chat", "stream"), "app:v1:{all}:stream");
        assert_eq!(names.key("news", "stream"), "app:v1:{c:news}:stream");
    }
}
