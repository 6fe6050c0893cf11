//! Channels' streams: each publication is stored with the position that it takes, which is the one after the
//! last. Of several nodes that take the same position one is let, and what is heard is only what was stored.
//!
//! A channel's last record is its position, and so is kept for longer than what is in it. Where nothing is to
//! be remembered of a position, as of one that begins or was cleared, it is stored without a body.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::Session;
use super::error::{self, JetStreamError, patiently};
use super::jetstream::Record;
use super::names::Store;
use crate::broker::engine::{
    Failure, Fault, POSITION_TTL, Read, Refusal, Remembered, Stream, Watched, new_epoch,
};
use crate::broker::envelope;
use crate::broker::topic::Topic;
use crate::channel::history::Position;
use crate::lock::lock;

/// Where channels stand, as this session last knew it: what is wrong is refused and then looked up.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<HashMap<String, Head>>);

/// Where a channel stands.
#[derive(Clone, Debug)]
struct Head {
    /// The number of the record that says so; 0 if none does.
    sequence: u64,
    position: Position,
}

impl Session {
    /// Stores a publication as the next one; under an idempotency key once, and then says where it was.
    pub(super) async fn append(
        &self,
        subject: String,
        body: &[u8],
        id: Option<&str>,
    ) -> Result<Position, JetStreamError> {
        let begun = Instant::now();
        patiently(async {
            let mut known = self.heads.get(&subject);
            loop {
                let Head { sequence, position: Position { offset, epoch } } = match known.take() {
                    Some(head) => head,
                    None => self.head(&subject).await?,
                };
                let position = Position { offset: offset + 1, epoch };
                let put = self.jetstream.put(
                    subject.clone(),
                    Some(sequence),
                    id,
                    payload(&position, body),
                );
                let stored = put.await;
                if error::should_retry(&stored, begun) {
                    continue;
                }
                let stored = stored?;
                if stored.is_duplicate {
                    return self.position_at(stored.sequence).await;
                }
                let head = Head { sequence: stored.sequence, position: position.clone() };
                self.heads.set(subject, head);
                return Ok(position);
            }
        })
        .await
    }

    /// Reads streams.
    pub(in crate::broker) async fn read(
        &self,
        reads: impl Iterator<Item = &Read>,
    ) -> Result<Vec<Result<Stream, Refusal>>, Failure> {
        try_join_all(reads.map(async |read| self.settle(self.read_one(read).await))).await
    }

    /// Where streams stand; those positions are kept for longer.
    pub(in crate::broker) async fn positions(
        &self,
        watched: &[Watched],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        let looked = watched.iter().map(async |watched| self.settle(self.look(watched).await));
        try_join_all(looked).await
    }

    /// Has a channel's stream forget; its position stays.
    pub(in crate::broker) async fn clear(&self, channel: &str, topic: &Topic) -> Result<(), Fault> {
        let (subject, begun) = (self.names.history(channel), Instant::now());
        let forgotten = patiently(async {
            loop {
                let head = self.head(&subject).await?;
                if head.sequence == 0 {
                    return Ok(());
                }
                let stored = self.store_position(&subject, head.sequence, &head.position).await;
                if !error::should_retry(&stored, begun) {
                    return self.jetstream.forget(Store::History, &subject, Some(stored?)).await;
                }
            }
        });
        self.settle(forgotten.await)??;
        let told = self.tell(topic, envelope::placeless(&envelope::clear_body()));
        self.settle(told)??;
        Ok(self.settle(self.hearing.flush().await)??)
    }

    async fn read_one(&self, Read { channel, from, ttl }: &Read) -> Result<Stream, JetStreamError> {
        let subject = self.names.history(channel);
        let (Head { sequence, position }, latest) = self.begin(&subject, from.as_ref()).await?;
        let mut stream = Stream { position, entries: VecDeque::new() };
        if stream.position.offset == 0 {
            return Ok(stream);
        }
        let is_at_end = from.as_ref() == Some(&stream.position);
        let from = from.as_ref().filter(|from| from.epoch == stream.position.epoch);
        let now = self.clock.now();
        // A record is kept for longer than what it says is remembered.
        let is_of_use = |record: &Record| match (from, parse(&record.payload)) {
            _ if record.sequence >= sequence => true,
            (Some(from), Some((position, _))) => position.offset >= from.offset,
            (None, Some(_)) => now.saturating_sub(record.time) < *ttl,
            (_, None) => false,
        };
        let records = match latest.filter(|_| is_at_end) {
            Some(latest) => vec![latest],
            None => {
                let of_use = |record: Record| is_of_use(&record).then_some(record);
                self.jetstream.all(Store::History, subject, of_use).await?
            }
        };
        if records.last().is_none_or(|record| record.sequence < sequence) {
            return Err(JetStreamError::Refused(
                "the stream was not read up to its end".to_owned(),
            ));
        }
        for record in records {
            let Some((position, body)) = parse(&record.payload) else { continue };
            let (offset, age) = (position.offset, now.saturating_sub(record.time));
            if position.epoch != stream.position.epoch {
                stream.entries.clear();
            }
            stream.position = position;
            if !body.is_empty() && (from.is_some() || age < *ttl) {
                stream.entries.push_back(Remembered { offset, body, age });
            }
        }
        Ok(stream)
    }

    /// Where a channel stands, once that is stored, and the record that said so before. One that has gone back
    /// behind what a node has of it, as at a server that lacks its end, is another one from then on: its offsets
    /// will be given again.
    async fn begin(
        &self,
        subject: &str,
        from: Option<&Position>,
    ) -> Result<(Head, Option<Record>), JetStreamError> {
        let begun = Instant::now();
        patiently(async {
            loop {
                let latest = self.jetstream.last(Store::History, subject).await?;
                let Head { sequence, mut position } = head_of(latest.as_ref())?;
                let went_back = from.is_some_and(|from| {
                    from.epoch == position.epoch && position.offset < from.offset
                });
                if sequence > 0 && !went_back {
                    return Ok((Head { sequence, position }, latest));
                }
                if went_back {
                    position.epoch = new_epoch();
                }
                let stored = self.store_position(subject, sequence, &position).await;
                if !error::should_retry(&stored, begun) {
                    return Ok((Head { sequence: stored?, position }, latest));
                }
            }
        })
        .await
    }

    /// Where a channel stands. That is stored anew before it is forgotten, once nothing else is remembered.
    async fn look(&self, Watched { channel, ttl }: &Watched) -> Result<Position, JetStreamError> {
        let subject = self.names.history(channel);
        let Some(record) = self.jetstream.last(Store::History, &subject).await? else {
            return Ok(Position::default());
        };
        let (position, _) = position_of(&record)?;
        if self.clock.now().saturating_sub(record.time) >= (POSITION_TTL / 2).max(*ttl) {
            match self.store_position(&subject, record.sequence, &position).await {
                // Or another node has just done so.
                Ok(_) | Err(JetStreamError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(position)
    }

    /// Stores a position alone.
    async fn store_position(
        &self,
        subject: &str,
        expected: u64,
        position: &Position,
    ) -> Result<u64, JetStreamError> {
        let payload = payload(position, b"");
        let stored = self.jetstream.put(subject.to_owned(), Some(expected), None, payload).await?;
        Ok(stored.sequence)
    }

    async fn head(&self, subject: &str) -> Result<Head, JetStreamError> {
        head_of(self.jetstream.last(Store::History, subject).await?.as_ref())
    }

    /// Where a publication was stored; that it was is all that is known once it was forgotten.
    async fn position_at(&self, sequence: u64) -> Result<Position, JetStreamError> {
        match self.jetstream.at(Store::History, sequence).await? {
            Some(record) => Ok(position_of(&record)?.0),
            None => Ok(Position::default()),
        }
    }
}

impl Heads {
    /// Takes what is known out: it is no longer true once it was built upon.
    fn get(&self, subject: &str) -> Option<Head> {
        self.lock().remove(subject)
    }

    fn set(&self, subject: String, head: Head) {
        let mut heads = self.lock();
        if heads.len() >= HEADS {
            heads.clear();
        }
        heads.insert(subject, head);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Head>> {
        lock(&self.0)
    }
}

/// Whether it says where a channel stands, and nothing else.
pub(super) fn is_bare_position(payload: &[u8]) -> bool {
    payload.ends_with(b":") && payload.iter().filter(|byte| **byte == b':').count() == 2
}

/// How it is stored and heard.
fn payload(Position { offset, epoch }: &Position, body: &[u8]) -> Bytes {
    [format!("{offset}:{epoch}:").as_bytes(), body].concat().into()
}

fn parse(payload: &Bytes) -> Option<(Position, Bytes)> {
    let mut parts = payload.splitn(3, |byte| *byte == b':');
    let offset = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let epoch = std::str::from_utf8(parts.next()?).ok()?.into();
    Some((Position { offset, epoch }, payload.slice_ref(parts.next()?)))
}

/// What a channel's last record says; the beginning of a stream that no channel had, if there is none.
fn head_of(latest: Option<&Record>) -> Result<Head, JetStreamError> {
    match latest {
        Some(record) => Ok(Head { sequence: record.sequence, position: position_of(record)?.0 }),
        None => {
            let position = Position { offset: 0, epoch: new_epoch() };
            Ok(Head { sequence: 0, position })
        }
    }
}

fn position_of(record: &Record) -> Result<(Position, Bytes), JetStreamError> {
    let strange = || JetStreamError::Refused(STRANGE.to_owned());
    parse(&record.payload).ok_or_else(strange)
}

const STRANGE: &str = "what is stored of the channel is nothing that a node stores; is another \
    program's message there?";

/// How many heads are known at most; to look one up costs a round trip.
const HEADS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_a_place_and_perhaps_a_body() {
        let position = Position { offset: 7, epoch: "e".into() };
        for body in ["", "p0:{}", ":", "p0:a:b:"] {
            let payload = payload(&position, body.as_bytes());
            assert_eq!(parse(&payload), Some((position.clone(), body.to_owned().into())));
            assert_eq!(is_bare_position(&payload), body.is_empty(), "{payload:?}");
        }
        for text in ["", "7", "7:e", "x:e:", "-1:e:"] {
            assert_eq!(parse(&text.into()), None, "{text}");
        }
    }
}
