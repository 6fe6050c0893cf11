//! [`Records`]: who is here, as a broker keeps it, seen and changed past the nodes.

use crate::nats::Nats;
use crate::node::Broker;
use crate::redis::Redis;

/// What stands there under the prefix that nodes have by default.
pub trait Records: Broker {
    /// Enters user 42 and a connection of it on `news:a` under a lease that has ended.
    fn enter_ghost(&self);

    /// Whether anything of that is left.
    fn has_ghost(&self) -> bool;

    /// What stands of a user.
    fn user(&self, user: u64) -> String;

    /// Loses all of it.
    fn forget_all(&self);
}

impl Records for Redis {
    fn enter_ghost(&self) {
        self.cli(&["hset", "fanfare:v1:{all}:cluster:users", "42", GHOST_USER]);
        self.cli(&["sadd", "fanfare:v1:{all}:cluster:users:ghost.0", "42"]);
        self.cli(&["sadd", "fanfare:v1:{all}:cluster:channels:ghost.0", "news:a"]);
        self.cli(&["hset", "fanfare:v1:{c:news:a}:present", "ghost.0/c", GHOST_CLIENT]);
        assert_eq!(self.cli(&["zadd", "fanfare:v1:{all}:cluster:leases", "99", "ghost.0"]), "1");
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
}

const GHOST_USER: &str = r#"{"ghost.0":"1:Ghost"}"#;
const GHOST_CLIENT: &str = r#"{"user":"42","client":"c"}"#;
