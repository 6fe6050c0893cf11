//! Several commands in one request, carried out one after the other.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ANSWER_BYTES, Method, TURN, call, parse};
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
    let mut answer = String::from(r#"{"replies":["#);
    for (i, command) in commands.into_iter().enumerate() {
        if i > 0 {
            answer.push(',');
        }
        let reply = if answer.len() > ANSWER_BYTES {
            Err(Fault::command(
                Error::LIMIT_EXCEEDED,
                "the answer is too large; ask for less in one batch",
            ))
        } else {
            reply(shard, command).await
        };
        answer.push_str(&reply.unwrap_or_else(|fault| fault.to_json()));
        if i % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    answer.push_str("]}");
    Ok(answer)
}

/// Carries out `{"<method>":{…}}`.
async fn reply(shard: &Shard, command: &RawValue) -> Result<String, Fault> {
    let named: BTreeMap<String, &RawValue> = parse(command.get().as_bytes())?;
    let [(name, body)] = &named.into_iter().collect::<Vec<_>>()[..] else {
        return Err(Fault::bad_request("bad request: a command has one key, its method"));
    };
    let method = Method::named(name)?;
    let result = call(shard, method, body.get().as_bytes()).await?;
    Ok(format!(r#"{{"{name}":{result}}}"#))
}
