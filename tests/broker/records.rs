//! [`Records`]: what a broker keeps, seen and changed past the nodes.

use serde_json::Value;

use crate::nats::Nats;
use crate::node::Broker;
use crate::redis::Redis;

/// What stands there under the prefix that nodes have by default.
pub trait Records: Broker {
    /// Enters user 42 and a connection of it on `news:a` under a lease that has ended.
    fn enter_ghost(&self);

    /// Enters the lease of a node that does not end, and answers nothing.
    fn enter_silent(&self);

    /// Whether anything of that is left.
    fn has_ghost(&self) -> bool;

    /// What stands of a user.
    fn user(&self, user: u64) -> String;

    /// Loses all that stands of anyone.
    fn forget_all(&self);

    /// Appends `2` to the stream of `news:a` as its second publication, and tells no node.
    fn append_unheard(&self, epoch: &str);

    /// Has `"other"` as the one publication of that stream, and tells no node.
    fn replace_all(&self, epoch: &str);
}

impl Records for Redis {
    fn enter_ghost(&self) {
        self.cli(&["hset", "fanfare:v1:{all}:cluster:users", "42", GHOST_USER]);
        self.cli(&["sadd", "fanfare:v1:{all}:cluster:users:ghost.0", "42"]);
        self.cli(&["sadd", "fanfare:v1:{all}:cluster:channels:ghost.0", "news:a"]);
        self.cli(&["hset", "fanfare:v1:{c:news:a}:present", "ghost.0/c", GHOST_CLIENT]);
        assert_eq!(self.cli(&["zadd", "fanfare:v1:{all}:cluster:leases", "99", "ghost.0"]), "1");
    }

    fn enter_silent(&self) {
        self.cli(&["zadd", "fanfare:v1:{all}:cluster:leases", "+inf", "silent.0"]);
    }

    fn has_ghost(&self) -> bool {
        !self.cli(&["keys", "*ghost*"]).is_empty()
    }

    fn user(&self, user: u64) -> String {
        self.cli(&["hget", "fanfare:v1:{all}:cluster:users", &user.to_string()])
    }

    fn forget_all(&self) {
        self.cli(&["flushall"]);
    }

    fn append_unheard(&self, _: &str) {
        self.cli(&["hincrby", "fanfare:v1:{c:news:a}:meta", "offset", "1"]);
        self.cli(&["xadd", REDIS_STREAM, "2-0", "t", "0", "b", "p0:2"]);
    }

    fn replace_all(&self, _: &str) {
        self.cli(&["del", REDIS_STREAM]);
        self.cli(&["xadd", REDIS_STREAM, "1-0", "t", "0", "b", r#"p0:"other""#]);
    }
}

impl Records for Nats {
    fn enter_ghost(&self) {
        for (subject, payload) in [
            ("fanfare.v1.u.42", GHOST_USER),
            ("fanfare.v1.p.client.ghost=2E0.news=3Aa.c", GHOST_CLIENT),
            ("fanfare.v1.n.lease.ghost=2E0", ""),
        ] {
            let answer = self.publish(subject, payload);
            assert!(answer.contains(r#""seq":"#), "{answer}");
        }
    }

    fn enter_silent(&self) {
        self.publish("fanfare.v1.n.lease.silent=2E0", "{}");
    }

    fn has_ghost(&self) -> bool {
        ["nodes", "clients"].iter().any(|stream| {
            let call = format!("STREAM.INFO.fanfare-v1-{stream}");
            self.ask(&call, r#"{"subjects_filter":">"}"#).contains("ghost")
        })
    }

    fn user(&self, user: u64) -> String {
        // What is asked past the API tells of a stream that is just being made, too.
        self.get(&format!("DIRECT.GET.fanfare-v1-users.fanfare.v1.u.{user}"))
    }

    fn forget_all(&self) {
        for stream in ["nodes", "users", "clients"] {
            let answer = self.ask(&format!("STREAM.DELETE.fanfare-v1-{stream}"), "");
            assert!(answer.contains(r#""success":true"#), "{answer}");
        }
    }

    fn append_unheard(&self, epoch: &str) {
        // The same stream, but for that what is stored is not sent on.
        let info = self.ask("STREAM.INFO.fanfare-v1-history", "");
        let mut config = serde_json::from_str::<Value>(&info).unwrap()["config"].take();
        config.as_object_mut().unwrap().remove("republish");
        self.ask("STREAM.DELETE.fanfare-v1-history", "");
        self.ask("STREAM.CREATE.fanfare-v1-history", &config.to_string());
        for i in 1..=2 {
            self.publish(NATS_SUBJECT, &format!("{i}:{epoch}:p0:{i}"));
        }
    }

    fn replace_all(&self, epoch: &str) {
        let all = format!(r#"{{"filter":"{NATS_SUBJECT}"}}"#);
        let answer = self.ask("STREAM.PURGE.fanfare-v1-history", &all);
        assert!(answer.contains(r#""success":true"#), "{answer}");
        self.publish(NATS_SUBJECT, &format!(r#"1:{epoch}:p0:"other""#));
    }
}

const GHOST_USER: &str = r#"{"ghost.0":"1:Ghost"}"#;
const GHOST_CLIENT: &str = r#"{"user":"42","client":"c"}"#;

/// Where the publications of `news:a` are.
const REDIS_STREAM: &str = "fanfare:v1:{c:news:a}:stream";
const NATS_SUBJECT: &str = "fanfare.v1.h.channel.news=3Aa";
