//! What may be asked of channels: who is there, what they remember, which there are.

use std::time::Instant;

use globset::GlobBuilder;
use serde::Deserialize;

use super::{ANSWER_BYTES, TURN, namespace, not_available, parse};
use crate::channel::history::{Page, Position};
use crate::config::{Namespace, Switch};
use crate::hub::Inner;
use crate::protocol::centrifuge::{self, Error, Since};
use crate::protocol::json::encode;
use crate::ring::ENTRY_BYTES;
use crate::server::respond::Fault;

pub(super) async fn presence(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    let channel = of_channel(body)?;
    has_presence(namespace(hub, &channel)?)?;
    let present = hub.present(&channel).await?;
    if present.iter().map(|info| info.size() + ENTRY_BYTES).sum::<usize>() > ANSWER_BYTES {
        return Err(Fault::command(
            Error::LIMIT_EXCEEDED,
            "too many are on the channel; use presence_stats",
        ));
    }
    Ok(centrifuge::presence_result(present.iter()))
}

pub(super) async fn presence_stats(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    let channel = of_channel(body)?;
    has_presence(namespace(hub, &channel)?)?;
    Ok(centrifuge::presence_stats_result(hub.presence_counts(&channel).await?))
}

pub(super) async fn history(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct History<'a> {
        #[serde(default)]
        channel: String,
        limit: Option<i64>,
        #[serde(borrow)]
        since: Option<Since<'a>>,
        reverse: Option<bool>,
    }
    let History { channel, limit, since, reverse } = parse(body)?;
    has_history(namespace(hub, &channel)?)?;
    let page = Page {
        // Less than nothing asks for everything.
        limit: usize::try_from(limit.unwrap_or(0)).unwrap_or(usize::MAX),
        max_bytes: ANSWER_BYTES,
        since: since.map(|it| Position { offset: it.offset, epoch: (&*it.epoch).into() }),
        reverse: reverse.unwrap_or_default(),
    };
    hub.followed(&channel, page.since.as_ref(), Instant::now()).await?;
    let read = hub
        .channels
        .with(&channel, |_, state| (state.history.page(&page), state.history.position()));
    let (publications, position) = read.unwrap_or((Ok(Vec::new()), Position::default()));
    let publications = publications.map_err(|_| {
        Fault::command(
            Error::UNRECOVERABLE_POSITION,
            "the history does not go on from since; begin without it",
        )
    })?;
    Ok(centrifuge::history_result(&publications, &position))
}

/// Has a channel forget its publications; its position stays.
pub(super) async fn history_remove(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    let channel = of_channel(body)?;
    has_history(namespace(hub, &channel)?)?;
    match &hub.broker {
        Some(broker) => broker.clear(hub, &channel).await?,
        None => drop(hub.channels.clear(&channel)),
    }
    Ok("{}".to_owned())
}

/// The channels that have subscribers.
pub(super) async fn channels(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Channels {
        pattern: Option<String>,
    }
    let Channels { pattern } = parse(body)?;
    let pattern = pattern.filter(|pattern| !pattern.is_empty());
    let glob = pattern.map(|pattern| GlobBuilder::new(&pattern).build()).transpose();
    let glob = glob.map_err(|error| Fault::bad_request(format!("bad request: {error}")))?;
    let matcher = glob.map(|glob| glob.compile_matcher());
    let mut answer = String::from(r#"{"channels":{"#);
    for (i, occupied) in hub.channels.occupied().enumerate() {
        for (name, subscribers) in occupied {
            if matcher.as_ref().is_some_and(|matcher| !matcher.is_match(&*name)) {
                continue;
            }
            if !answer.ends_with('{') {
                answer.push(',');
            }
            answer += &format!(r#"{}:{{"num_clients":{subscribers}}}"#, encode(&*name));
        }
        if answer.len() > ANSWER_BYTES {
            return Err(Fault::command(
                Error::LIMIT_EXCEEDED,
                "too many channels; narrow the pattern",
            ));
        }
        if i % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    answer.push_str("}}");
    Ok(answer)
}

fn of_channel(body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct OfChannel {
        #[serde(default)]
        channel: String,
    }
    parse(body).map(|OfChannel { channel }| channel)
}

fn has_presence(namespace: &Namespace) -> Result<(), Fault> {
    match namespace.presence {
        Switch::On => Ok(()),
        Switch::Off => Err(not_available("the namespace has no presence; set it to on")),
    }
}

fn has_history(namespace: &Namespace) -> Result<(), Fault> {
    if namespace.window().is_open() {
        return Ok(());
    }
    Err(not_available("the namespace has no history; set history_size and history_ttl"))
}
