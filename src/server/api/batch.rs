//! Several commands in one request, carried out one after the other.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ANSWER_BYTES, Method, TURN, call, parse, publish};
use crate::hub::publish::Published;
use crate::protocol::centrifuge::Error;
use crate::receipt::Receipt;
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
        if i % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    replies.settle(shard).await;
    Ok(format!(r#"{{"replies":[{}]}}"#, replies.given))
}

/// The replies to the commands so far, in their order.
#[derive(Default)]
struct Replies {
    given: String,
    /// Publishes whose replies come next: all under way, so that a broker is waited for once.
    under_way: Vec<Receipt<Published>>,
}

impl Replies {
    /// Carries out `{"<method>":{…}}`.
    async fn carry_out(&mut self, shard: &Shard, command: &RawValue) {
        if self.given.len() > ANSWER_BYTES {
            let message = "the answer is too large; ask for less in one batch";
            self.settle(shard).await;
            return self.give(Err(Fault::command(Error::LIMIT_EXCEEDED, message)));
        }
        match named(command) {
            Ok((Method::Publish, body)) => match publish::begin(&shard.hub, body) {
                Ok(receipt) => {
                    self.under_way.push(receipt);
                    if self.under_way.len() == UNDER_WAY_MAX {
                        self.settle(shard).await;
                    }
                }
                Err(fault) => {
                    self.settle(shard).await;
                    self.give_publish(shard, Err(fault));
                }
            },
            named => {
                // What it tells is to be as if the publishes before it were done.
                self.settle(shard).await;
                let reply = match named {
                    Ok((method, body)) => {
                        let result = call(shard, method, body).await;
                        result.map(|result| format!(r#"{{"{}":{result}}}"#, method.name()))
                    }
                    Err(fault) => Err(fault),
                };
                self.give(reply);
            }
        }
    }

    /// Waits for the publishes that are under way.
    async fn settle(&mut self, shard: &Shard) {
        for receipt in std::mem::take(&mut self.under_way) {
            self.give_publish(shard, publish::answer(receipt.await));
        }
    }

    fn give_publish(&mut self, shard: &Shard, result: Result<String, Fault>) {
        let name = Method::Publish.name();
        shard.stats().called(name, result.as_ref().err().map(Fault::code));
        self.give(result.map(|result| format!(r#"{{"{name}":{result}}}"#)));
    }

    fn give(&mut self, reply: Result<String, Fault>) {
        if !self.given.is_empty() {
            self.given.push(',');
        }
        self.given.push_str(&reply.unwrap_or_else(|fault| fault.to_json()));
    }
}

/// Publishes that are under way at once: few enough to find room at a broker, many enough to share its time.
const UNDER_WAY_MAX: usize = 1024;

/// A command's method, and its body.
fn named(command: &RawValue) -> Result<(Method, &[u8]), Fault> {
    let named: BTreeMap<String, &RawValue> = parse(command.get().as_bytes())?;
    let [(name, body)] = &named.into_iter().collect::<Vec<_>>()[..] else {
        return Err(Fault::bad_request("bad request: a command has one key, its method"));
    };
    Ok((Method::named(name)?, body.get().as_bytes()))
}
