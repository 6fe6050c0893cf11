//! What may be asked of channels: who is there, what they remember, which there are.

use std::time::Instant;

use serde::Deserialize;

use super::{ANSWER_BYTES, namespace, not_available, parse};
use crate::channel::history::{Page, Position};
use crate::config::{Namespace, Switch};
use crate::hub::Inner;
use crate::hub::occupied::OccupiedError;
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

/// The channels that have subscribers, on any node.
pub(super) async fn channels(hub: &Inner, body: &[u8]) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Channels {
        pattern: Option<String>,
    }
    let Channels { pattern } = parse(body)?;
    let pattern = pattern.filter(|pattern| !pattern.is_empty());
    let occupied = hub.occupied(pattern.as_deref()).await.map_err(|error| match error {
        OccupiedError::Pattern(_) | OccupiedError::LongPattern => {
            Fault::bad_request(format!("bad request: {error}"))
        }
        OccupiedError::TooMany => Fault::command(Error::LIMIT_EXCEEDED, error.to_string()),
        OccupiedError::Silent(_) => Fault::command(Error::INTERNAL, error.to_string()),
        OccupiedError::Broker(error) => error.into(),
    })?;
    let mut answer = String::from(r#"{"channels":{"#);
    for (i, (name, subscribers)) in occupied.iter().enumerate() {
        if i > 0 {
            answer.push(',');
        }
        answer += &format!(r#"{}:{{"num_clients":{subscribers}}}"#, encode(name));
        if i % NAMES == NAMES - 1 {
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

/// Names that are written before others have their turn: half a millisecond's work.
const NAMES: usize = 4096;
