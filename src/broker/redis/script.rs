//! What must happen in one step, as scripts, which say what and why.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, Value};
use bytes::Bytes;

use super::presence::PRESENCE_TTL;
use super::servers::Routed;
use super::{Names, Remember};
use crate::broker::engine::{
    KEY_TTL, Read, Refusal, Remembered, Stream, Watched, new_epoch, position_ttl,
};
use crate::channel::history::Position;

/// What is done in one step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    Publish,
    Read,
    Renew,
    EnterUser,
    EnterClient,
    Position,
}

/// The scripts as the server knows them.
#[derive(Clone, Debug)]
pub(super) struct Scripts([String; TEXTS.len()]);

impl Scripts {
    /// Brings them to the server.
    pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut loading = ::redis::pipe();
        for text in TEXTS {
            loading.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        Ok(Self(loading.query_async(connection).await?))
    }

    /// A call of one on keys, all of one slot.
    pub(super) fn call(&self, script: Script, keys: &[String]) -> Routed {
        let slot_of = keys.first().map_or("", String::as_str);
        Routed::new(slot_of, "EVALSHA").arg(&self.0[script as usize]).arg(keys.len()).arg(keys)
    }

    /// Publishes by that word and topic, and remembers.
    pub(super) fn publish(
        &self,
        names: &Names,
        (word, topic): (&str, String),
        body: &Bytes,
        Remember { channel, window, key }: &Remember,
    ) -> Routed {
        let mut keys = vec![names.position(channel), names.stream(channel)];
        keys.extend(key.as_ref().map(|key| names.answer(channel, key)));
        let size = if window.is_open() { window.size } else { 0 };
        let call = self.call(Script::Publish, &keys).arg(topic).arg(&body[..]).arg(size);
        let call = call.arg(millis(window.ttl)).arg(millis(position_ttl(window.ttl)));
        call.arg(&*new_epoch()).arg(millis(KEY_TTL)).arg(word)
    }

    /// Reads a stream.
    pub(super) fn read(&self, names: &Names, Read { channel, from, ttl }: &Read) -> Routed {
        let keys = [names.position(channel), names.stream(channel)];
        let Position { offset, epoch } = from.clone().unwrap_or_default();
        let call = self.call(Script::Read, &keys).arg(offset).arg(&*epoch).arg(&*new_epoch());
        call.arg(millis(position_ttl(*ttl))).arg(millis(UNUSED_TTL)).arg(READ_MAX)
    }

    /// Asks where a stream stands.
    pub(super) fn position(&self, names: &Names, Watched { channel, ttl }: &Watched) -> Routed {
        let keys = [names.position(channel), names.clients_on(channel), names.users_on(channel)];
        let call = self.call(Script::Position, &keys);
        call.arg(millis(position_ttl(*ttl))).arg(millis(UNUSED_TTL)).arg(millis(PRESENCE_TTL))
    }
}

/// The position that a publish was given.
pub(super) fn position(answer: Value) -> Result<Position, Refusal> {
    match answer {
        // The number of nodes that heard it, as nothing remembers it.
        Value::Int(_) => Ok(Position::default()),
        Value::BulkString(place) => parse_position(&place).ok_or_else(strange),
        _ => Err(strange()),
    }
}

/// What was read of a stream.
pub(super) fn stream(answer: Value) -> Result<Stream, Refusal> {
    let read = || {
        let [place, now, entries] = array(answer)?;
        let position = parse_position(&bulk(place)?)?;
        let now: u64 = number(&bulk(now)?)?;
        let Value::Array(entries) = entries else { return None };
        let entries: Option<_> = entries.into_iter().map(|it| entry(it, now)).collect();
        Some(Stream { position, entries: entries? })
    };
    read().ok_or_else(strange)
}

fn entry(value: Value, now: u64) -> Option<Remembered> {
    let [id, fields] = array(value)?;
    let id = bulk(id)?;
    let offset = number(id.strip_suffix(b"-0")?)?;
    let [_, time, _, body] = array(fields)?;
    let age = now.saturating_sub(number(&bulk(time)?)?);
    Some(Remembered { offset, body: bulk(body)?.into(), age: Duration::from_millis(age) })
}

/// `<offset>:<epoch>`.
fn parse_position(position: &[u8]) -> Option<Position> {
    let (offset, epoch) = std::str::from_utf8(position).ok()?.split_once(':')?;
    Some(Position { offset: offset.parse().ok()?, epoch: epoch.into() })
}

pub(super) fn array<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(values) => values.try_into().ok(),
        _ => None,
    }
}

pub(super) fn bulk(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn strange() -> Refusal {
    Refusal::new("its answer is not what the script gives; is another program's key there?")
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// Every script, in the order of [`Script`].
const TEXTS: [&str; 6] = [
    include_str!("scripts/publish.lua"),
    include_str!("scripts/read.lua"),
    include_str!("scripts/renew.lua"),
    concat!(include_str!("scripts/note_user.lua"), include_str!("scripts/enter_user.lua")),
    concat!(include_str!("scripts/note_user.lua"), include_str!("scripts/enter_client.lua")),
    include_str!("scripts/position.lua"),
];

/// How long the position of a stream is kept that nothing was published to: as long as its channel is followed,
/// it is looked at more often.
const UNUSED_TTL: Duration = Duration::from_secs(10 * 60);

/// Publications that are read of a stream at once.
const READ_MAX: usize = 500;
