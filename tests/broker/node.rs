//! Nodes: whole servers in this process, which meet over a broker of either kind.

use std::ops::DerefMut;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::BrokerKind;
use serde_json::{Value, json};

use crate::client::Client;
use crate::daemon::Daemon;
use crate::nats::Nats;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::support::*;

/// A server over which nodes meet.
pub trait Broker: DerefMut<Target = Daemon> {
    /// Its address as settings take it.
    fn url(&self) -> String;

    /// The same, by a network that fails.
    fn url_by(&self, proxy: &Proxy) -> String {
        self.url().replace(&self.address().to_string(), &proxy.address().to_string())
    }
}

impl Broker for Redis {
    fn url(&self) -> String {
        self.url()
    }
}

impl Broker for Nats {
    fn url(&self) -> String {
        self.url()
    }
}

/// Makes two tests of each function: one with Redis, and one with NATS.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod redis {
            $(#[test]
            fn $name() {
                super::$name(&mut crate::redis::Redis::persistent());
            })+
        }

        mod nats {
            $(#[test]
            fn $name() {
                super::$name(&mut crate::nats::Nats::start());
            })+
        }
    };
}

pub(crate) use on_both;

/// A node that is ready, with the channels that tests have.
pub fn node(url: &str) -> TestServer {
    node_with(url, |_| {})
}

/// The same, with settings of the test's own.
pub fn node_with(url: &str, set: impl FnOnce(&mut Config)) -> TestServer {
    let node = TestServer::with_channels(|config| {
        if url.starts_with("nats://") {
            config.broker.kind = BrokerKind::Nats;
            config.broker.nats.url = url.to_owned();
        } else {
            config.broker.kind = BrokerKind::Redis;
            config.broker.redis.url = url.to_owned();
        }
        // Clients of the tests answer no pings while they are not asked for anything.
        config.heartbeat.interval = Duration::from_secs(600);
        config.broker.timeout = Duration::from_secs(2);
        config.broker.lease = Duration::from_secs(4);
        set(config);
    });
    node.until_trusted();
    node
}

impl TestServer {
    /// Waits until the node trusts its broker.
    pub fn until_trusted(&self) {
        wait_until("the broker is trusted", || self.readiness("?strict").0 == 200);
    }

    /// Waits until the node says that it doubts its broker; returns why.
    pub fn until_in_doubt(&self) -> String {
        wait_until("the broker is in doubt", || self.readiness("?strict").0 == 503);
        self.readiness("?strict").1
    }

    /// Status and body of `/ready`.
    pub fn readiness(&self, query: &str) -> (u16, String) {
        let request = format!("GET /ready{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let (status, answer) = self.request(&request);
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Publishes by the API; the code of the error if it is refused.
    pub fn try_publish(&self, channel: &str, data: &Value) -> Result<u64, u64> {
        let (_, answer) =
            self.api("publish", &json!({"channel": channel, "data": data}).to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        match answer["error"]["code"].as_u64() {
            Some(code) => Err(code),
            None => Ok(answer["result"]["offset"].as_u64().unwrap_or(0)),
        }
    }

    /// The result of a command of the API.
    pub fn result(&self, method: &str, body: &Value) -> Value {
        let (status, answer) = self.api(method, &body.to_string());
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(status == 200 && answer["error"].is_null(), "{method} {body}: {answer}");
        answer["result"].take()
    }
}

/// A client on a channel of a node.
pub fn subscriber(node: &TestServer, user: i32, channel: &str) -> Client {
    let mut client = node.client(user);
    client.subscribe(channel);
    client
}
