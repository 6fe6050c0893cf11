//! Several commands in one request, carried out one after the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
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
    let mut replies = Replies::default();
    for (i, command) in commands(body)?.into_iter().enumerate() {
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
    async fn carry_out(&mut self, shard: &Shard, command: Result<Command<'b>, Unread<'b>>) {
        if self.given.len() > ANSWER_BYTES {
            let message = "the answer is too large; ask for less in one batch";
            self.settle(shard).await;
            return self.give(&Fault::command(Error::LIMIT_EXCEEDED, message).to_json());
        }
        let command = match command {
            Ok(Command::Publish(publish)) => {
                return self.publish(shard, publish.judge(&shard.hub)).await;
            }
            Err(Unread { command, fault }) if is_publish(command) => {
                return self.publish(shard, Err(fault)).await;
            }
            Ok(Command::Named(Name(name), body)) => Method::named(&name).map(|it| (it, body)),
            Ok(Command::Strange) => {
                Err(Fault::bad_request("bad request: a command has one key, its method"))
            }
            Err(Unread { fault, .. }) => Err(fault),
        };
        // What it tells is to be as if the publishes before it were done.
        self.settle(shard).await;
        match command {
            Ok((method, body)) => {
                let result = call(shard, method, body.get().as_bytes()).await;
                self.give_result(method, result, |given, result| given.push_str(&result));
            }
            Err(fault) => self.give(&fault.to_json()),
        }
    }

    /// Has a publish made with those beside it, or counted with them if it is none.
    async fn publish(&mut self, shard: &Shard, publish: Result<Publish<'b>, Fault>) {
        self.publishes.push(publish);
        if self.publishes.len() == TOGETHER_MAX {
            self.settle(shard).await;
        }
    }

    /// Makes the publishes.
    async fn settle(&mut self, shard: &Shard) {
        if self.publishes.is_empty() {
            return;
        }
        let publishes = std::mem::take(&mut self.publishes).into_iter();
        let results = shard.hub.publish_all(publishes).await;
        let codes = results.iter().filter_map(|result| Some(result.as_ref().err()?.code()));
        shard.stats().called(Method::Publish.name(), results.len(), codes);
        for result in results {
            self.give_result(Method::Publish, result, |given, published| {
                publish::push_answer(given, &published);
            });
        }
    }

    fn give_result<T>(
        &mut self,
        method: Method,
        result: Result<T, Fault>,
        push: impl FnOnce(&mut String, T),
    ) {
        match result {
            Ok(result) => {
                self.give(r#"{""#);
                self.given.extend([method.name(), r#"":"#]);
                push(&mut self.given, result);
                self.given.push('}');
            }
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

/// The commands of a batch, each read by itself only if one of them cannot be.
fn commands(body: &[u8]) -> Result<Vec<Result<Command<'_>, Unread<'_>>>, Fault> {
    #[derive(Deserialize)]
    struct Batch<T> {
        commands: Vec<T>,
    }
    if let Ok(Batch { commands }) = parse(body) {
        return Ok(commands.into_iter().map(Ok).collect());
    }
    let Batch { commands } = parse::<Batch<&RawValue>>(body).map_err(Fault::in_band)?;
    let read =
        |command| parse_text(RawValue::get(command)).map_err(|fault| Unread { command, fault });
    Ok(commands.into_iter().map(read).collect())
}

/// A command that cannot be read.
struct Unread<'a> {
    command: &'a RawValue,
    fault: Fault,
}

/// Whether a command that cannot be read is to publish.
fn is_publish(command: &RawValue) -> bool {
    let entries = serde_json::from_str::<BTreeMap<String, &RawValue>>(command.get());
    entries.is_ok_and(|entries| entries.into_keys().eq([Method::Publish.name()]))
}

/// A command: a JSON object whose only key is its method.
enum Command<'a> {
    /// Read at once, as most commands are publishes; boxed, as a batch may have many that are short.
    Publish(Box<publish::Publish<'a>>),
    Named(Name<'a>, &'a RawValue),
    /// One that has not one key.
    Strange,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Command<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Command<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command<'de>, A::Error> {
                let Some(name) = map.next_key::<Name<'de>>()? else { return Ok(Command::Strange) };
                let mut command = if name.0 == Method::Publish.name() {
                    Command::Publish(Box::new(map.next_value::<Object<_>>()?.0))
                } else {
                    Command::Named(name, map.next_value()?)
                };
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    command = Command::Strange;
                }
                Ok(command)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// What is given as an object; a derived type alone would also take an array of its fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Object)
    }
}
