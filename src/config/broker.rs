//! `broker.*`: how nodes meet.

use std::time::Duration;

use super::Secret;
use super::choice::choice;

/// `broker.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Broker {
    /// What the nodes meet over.
    pub kind: BrokerKind,
    /// What the names begin with of all that is kept there; nodes with the same are one cluster.
    pub prefix: String,
    /// When a doubt about the broker makes a node not ready.
    pub ready: BrokerReady,
    /// How long whoever needs the broker waits for it.
    pub timeout: Duration,
    /// How long who was on a node that is gone still counts as present.
    pub lease: Duration,
    /// `broker.redis.*`.
    pub redis: Redis,
    /// `broker.nats.*`.
    pub nats: Nats,
}

/// `broker.redis.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Redis {
    /// Where the server is: `redis://` or, with TLS, `rediss://`; of Sentinels or a cluster several,
    /// separated by commas.
    pub url: String,
    /// What is there.
    pub mode: RedisMode,
    /// What Sentinels call the primary.
    pub primary: String,
    /// The Sentinels' own password, if they have one.
    pub sentinel_password: Option<Secret>,
    /// The password, if it does not stand in the URL.
    pub password: Option<Secret>,
    /// A file of certificates to trust instead of the system's.
    pub ca_file: String,
}

/// `broker.nats.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Nats {
    /// Where the servers are, separated by commas: `nats://` or, with TLS, `tls://`.
    pub url: String,
    /// The user, if the server asks for one.
    pub user: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// The token, if the server asks for that instead.
    pub token: Option<Secret>,
    /// A file of certificates to trust instead of the system's.
    pub ca_file: String,
}

choice! {
    /// `broker.kind`.
    pub enum BrokerKind {
        /// There is one node.
        "local" => Local,
        /// Redis, or what speaks as it does.
        "redis" => Redis,
        /// NATS with JetStream.
        "nats" => Nats,
    }
}

choice! {
    /// `broker.redis.mode`.
    pub enum RedisMode {
        /// One server.
        "single" => Single,
        /// Sentinels, which know who the primary is.
        "sentinel" => Sentinel,
        /// A cluster.
        "cluster" => Cluster,
    }
}

choice! {
    /// `broker.ready`.
    pub enum BrokerReady {
        /// A doubt that lasts 10 s.
        "grace" => Grace,
        /// Any doubt.
        "strict" => Strict,
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            kind: BrokerKind::Local,
            prefix: "fanfare".to_owned(),
            ready: BrokerReady::Grace,
            timeout: Duration::from_secs(4),
            lease: Duration::from_secs(15),
            redis: Redis::default(),
            nats: Nats::default(),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            mode: RedisMode::Single,
            primary: "mymaster".to_owned(),
            sentinel_password: None,
            password: None,
            ca_file: String::new(),
        }
    }
}

impl Default for Nats {
    fn default() -> Self {
        let url = "nats://127.0.0.1:4222".to_owned();
        Self { url, user: String::new(), password: None, token: None, ca_file: String::new() }
    }
}

/// Whether it can begin names: without what names part their parts by.
pub(super) fn is_prefix(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(is_allowed)
}

/// Text without the passwords of the URLs in it, for where it is shown.
pub(super) fn without_passwords(text: &str) -> String {
    let hide = |url: &str| {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        match rest.rsplit_once('@') {
            Some((login, rest)) if login.contains(':') => {
                let user = login.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}:***@{rest}")
            }
            _ => url.to_owned(),
        }
    };
    text.split(',').map(hide).collect::<Vec<_>>().join(",")
}

fn has_password(rest: &str) -> bool {
    rest.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
}

/// Whether it may be the addresses of servers of Redis, without passwords, which would be shown.
pub(super) fn is_redis_url(text: &str) -> bool {
    text.split(',').map(str::trim).all(|url| {
        let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
        rest.is_some_and(|rest| !rest.is_empty() && !has_password(rest))
    })
}

/// Whether they may be the addresses of servers of NATS, without a user, which has a key of its own.
pub(super) fn is_nats_url(text: &str) -> bool {
    text.split(',').all(|url| {
        let rest = url.trim().strip_prefix("nats://").or_else(|| url.trim().strip_prefix("tls://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_stands_in_no_url_and_is_not_shown() {
        for url in ["redis://h", "rediss://u@h:6380/1", "redis://a,redis://b"] {
            assert!(is_redis_url(url), "{url}");
            assert_eq!(without_passwords(url), url);
        }
        for url in ["redis://:secret@h", "redis://u:sec:ret@h", "redis://a,redis://:secret@b"] {
            assert!(!is_redis_url(url) && !without_passwords(url).contains("ret"), "{url}");
        }
        assert_eq!(without_passwords("redi://u:secret@h:1"), "redi://u:***@h:1");
    }
}
