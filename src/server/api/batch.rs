//! Several commands in one request, carried out one after the other.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::publish::TOGETHER_MAX;
use super::{ANSWER_BYTES, Method, call, parse, parse_text, publish};
use crate::hub::publish::{Publish, turn_after};
use crate::protocol::centrifuge::Error;
use crate::server::respond::Fault;
use crate::shard::Shard;

/// `{"replies":[…]}`, each as Centrifugo gives it: the result under its method's name, or an error.
pub(super) async fn answer(shard: &Shard, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        commands: Vec<&'a RawValue>,
    }
    let Batch { commands } = parse(body).map_err(Fault::in_band)?;
    let mut replies = Replies::default();
    for (i, command) in commands.into_iter().enumerate() {
        replies.carry_out(shard, command).await;
        turn_after(i).await;
    }
    replies.settle(shard).await;
    Ok(format!(r#"{{"replies":[{}]}}"#, replies.given))
}

/// The replies to the commands so far, in their order.
#[derive(Default)]
struct Replies<'b> {
    given: String,
    /// Publishes whose replies come next.
    publishes: Vec<Result<Publish<'b>, Fault>>,
}

impl<'b> Replies<'b> {
    /// Carries out `{"<method>":{…}}`.
    async fn carry_out(&mut self, shard: &Shard, command: &'b RawValue) {
        if self.given.len() > ANSWER_BYTES {
            let message = "the answer is too large; ask for less in one batch";
            self.settle(shard).await;
            return self.give(&Fault::command(Error::LIMIT_EXCEEDED, message).to_json());
        }
        let named = named(command);
        if let Ok((Method::Publish, body)) = named {
            let told = parse_text::<publish::Publish<'_>>(body);
            self.publishes.push(told.and_then(|told| told.judge(&shard.hub)));
            if self.publishes.len() == TOGETHER_MAX {
                self.settle(shard).await;
            }
            return;
        }
        // What it tells is to be as if the publishes before it were done.
        self.settle(shard).await;
        match named {
            Ok((method, body)) => {
                self.give_result(method, call(shard, method, body.as_bytes()).await)
            }
            Err(fault) => self.give(&fault.to_json()),
        }
    }

    /// Makes the publishes.
    async fn settle(&mut self, shard: &Shard) {
        let publishes = std::mem::take(&mut self.publishes).into_iter();
        for result in shard.hub.publish_all(publishes).await {
            let code = result.as_ref().err().map(Fault::code);
            shard.stats().called(Method::Publish.name(), code);
            self.give_result(Method::Publish, result.map(|it| publish::answer(&it)));
        }
    }

    fn give_result(&mut self, method: Method, result: Result<String, Fault>) {
        match result {
            Ok(result) => self.give(&format!(r#"{{"{}":{result}}}"#, method.name())),
            Err(fault) => self.give(&fault.to_json()),
        }
    }

    fn give(&mut self, reply: &str) {
        if !self.given.is_empty() {
            self.given.push(',');
        }
        self.given.push_str(reply);
    }
}

/// A command's method, and its body.
fn named(command: &RawValue) -> Result<(Method, &str), Fault> {
    match parse_text(command.get())? {
        Only(Some((Name(name), body))) => Ok((Method::named(&name)?, body.get())),
        Only(None) => Err(Fault::bad_request("bad request: a command has one key, its method")),
    }
}

/// The only entry of a JSON object, if it has one.
struct Only<'a>(Option<(Name<'a>, &'a RawValue)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Only<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Only<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Only<'de>, A::Error> {
                let mut only = map.next_entry()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    only = None;
                }
                Ok(Only(only))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
