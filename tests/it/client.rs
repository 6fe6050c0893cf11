//! [`Client`]: a peer of the Centrifuge protocol.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fanfare::Config;
use fanfare::config::{Namespace, Publish, Recovery, Subscribe, Switch};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::*;

/// A client on raw bytes, which keeps the pushes that come while it waits for a reply.
pub struct Client {
    pub peer: Peer,
    replies: VecDeque<Value>,
    pushes: VecDeque<Value>,
    last_id: u32,
}

impl TestServer {
    /// A server with channels: those of `open` remember nothing, those of `news` everything.
    pub fn with_channels(set: impl FnOnce(&mut Config)) -> Self {
        Self::with(|config| {
            namespace(config, "open", |_| {});
            namespace(config, "news", |news| {
                news.history_size = 1000;
                news.recovery = Recovery::Stream;
                news.presence = Switch::On;
            });
            set(config);
        })
    }

    /// A client that did not say yet whose it is.
    pub fn stranger(&self) -> Client {
        Client::new(self.open_at("/connection/websocket", ""))
    }

    /// A client that is connected as a user.
    pub fn client(&self, user: i32) -> Client {
        self.client_with(&json!({"sub": user.to_string()}))
    }

    /// A client that is connected by a token with these claims.
    pub fn client_with(&self, claims: &Value) -> Client {
        let mut client = self.stranger();
        client.call("connect", &json!({"token": sign(claims)}));
        client
    }

    /// Publishes as a backend does.
    pub fn publish(&self, channel: &str, data: &Value) {
        let body = json!({"channel": channel, "data": data}).to_string();
        let (status, answer) = self.api("publish", &body);
        assert!(status == 200 && answer.contains("result"), "{body}: {answer}");
    }
}

impl Client {
    pub fn new(peer: Peer) -> Self {
        Self { peer, replies: VecDeque::new(), pushes: VecDeque::new(), last_id: 0 }
    }

    /// Sends a command and returns its result, which must be one.
    pub fn call(&mut self, method: &str, body: &Value) -> Value {
        let mut reply = self.ask(method, body);
        assert!(reply.get(method).is_some(), "{method} {body}: {reply}");
        reply[method].take()
    }

    /// Sends a command and returns the code of its error, which must be one.
    pub fn refusal(&mut self, method: &str, body: &Value) -> u64 {
        let reply = self.ask(method, body);
        reply["error"]["code"].as_u64().unwrap_or_else(|| panic!("{method} {body}: {reply}"))
    }

    /// Sends a command and returns its reply, whatever that is.
    pub fn ask(&mut self, method: &str, body: &Value) -> Value {
        let command = self.command(method, body);
        self.peer.send_text(&command);
        self.reply()
    }

    /// A command under the next id.
    pub fn command(&mut self, method: &str, body: &Value) -> String {
        self.last_id += 1;
        json!({"id": self.last_id, method: body}).to_string()
    }

    /// The next reply.
    pub fn reply(&mut self) -> Value {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return reply;
            }
            self.read();
        }
    }

    /// The next push.
    pub fn push(&mut self) -> Value {
        // Pings would else keep it waiting for ever; some pushes are due only after 25 s.
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no push comes");
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            self.read();
        }
    }

    /// Pushes that came with replies and were not asked for yet.
    pub fn take_pushes(&mut self) -> Vec<Value> {
        self.pushes.drain(..).collect()
    }

    pub fn subscribe(&mut self, channel: &str) -> Value {
        self.call("subscribe", &json!({"channel": channel}))
    }

    /// Subscribes from a position.
    pub fn recover(&mut self, channel: &str, offset: u64, epoch: &Value) -> Value {
        let body = json!({"channel": channel, "recover": true, "offset": offset, "epoch": epoch});
        self.call("subscribe", &body)
    }

    /// Its next push must be a publication of this channel and data.
    pub fn must_hear(&mut self, channel: &str, data: &Value) {
        let push = self.push();
        assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!(channel), data), "{push}");
    }

    /// Takes in one frame. A ping is answered, as every client does.
    fn read(&mut self) {
        for line in self.peer.read_message().lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            if line == json!({}) {
                self.peer.send_text("{}");
            } else if line.get("push").is_some() {
                self.pushes.push_back(line["push"].take());
            } else {
                self.replies.push_back(line);
            }
        }
    }
}

/// A namespace whose channels are open to everyone with a user.
pub fn namespace(config: &mut Config, name: &str, set: impl FnOnce(&mut Namespace)) {
    let mut namespace = Namespace::default();
    namespace.subscribe = Subscribe::Anyone;
    namespace.publish = Publish::Subscribers;
    set(&mut namespace);
    config.namespaces.insert(name.to_owned(), namespace);
}

/// A token under the server's secret.
pub fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}

/// The time in so many seconds, as tokens have it.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as i64 + seconds
}

/// The data of publications, as recovery and history give them.
pub fn data(publications: &Value) -> Vec<Value> {
    let publications = publications.as_array().map_or(&[][..], Vec::as_slice);
    publications.iter().map(|publication| publication["data"].clone()).collect()
}
