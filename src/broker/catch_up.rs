//! Reading streams: what a channel lacks of what the broker has is brought to it, in its order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Failure, Read, Remembered, Session, Stream};
use super::envelope::Envelope;
use super::{Broker, BrokerStats};
use crate::channel::history::{Position, Window};
use crate::channel::post::{Content, Post};
use crate::channel::publication::Publication;
use crate::channel::{Channel, ChannelId, State};
use crate::hub::Inner;
use crate::ring::{Load, Reservation};

/// Brings channels up to where their streams are; returns those whose streams could not be read.
pub(super) async fn run(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    names: &[Arc<str>],
) -> Result<Vec<Arc<str>>, Failure> {
    let asked = Instant::now();
    let mut reads = Vec::new();
    for name in names {
        let Some(Behind { id, window, from, has_subscribers }) = behind(hub, name) else {
            continue;
        };
        if window.is_open() {
            let life = Life { hub, name: name.clone(), id, has_subscribers };
            reads.push((life, Read { channel: name.clone(), from, ttl: window.ttl }));
            continue;
        }
        if has_subscribers {
            // No publication of it has a position, which would tell whether anything lacks.
            BrokerStats::count(&broker.stats.possible_gaps);
        }
        hub.channels.with(name, |_, state| finish(state, &Position::default(), asked));
    }
    let mut failed = Vec::new();
    let streams = session.read(reads.iter().map(|(_, read)| read)).await?;
    for ((life, read), stream) in reads.into_iter().zip(streams) {
        match stream {
            Ok(stream) => bring(broker, &life, (read.from, asked), stream).await,
            Err(refusal) => {
                tracing::warn!(channel = &*read.channel, %refusal, "a stream cannot be read");
                failed.push(read.channel);
            }
        }
    }
    Ok(failed)
}

/// A channel that is behind.
struct Behind {
    id: ChannelId,
    window: Window,
    /// Where its mirror stands.
    from: Option<Position>,
    has_subscribers: bool,
}

/// How far a channel is behind; `None` if it is current or gone.
fn behind(hub: &Inner, name: &str) -> Option<Behind> {
    let window = hub.config.namespace(name)?.window();
    hub.channels.with(name, |channel, state| {
        let mirror = state.mirror.as_ref().filter(|mirror| !mirror.is_current())?;
        let from = mirror.has_position().then(|| state.history.position());
        Some(Behind { id: channel.id, window, from, has_subscribers: state.subscribers() > 0 })
    })?
}

/// A channel for as long as it is the one that was found behind: what was read for it is not for one of the
/// same name that has begun since.
struct Life<'a> {
    hub: &'a Inner,
    name: Arc<str>,
    id: ChannelId,
    has_subscribers: bool,
}

impl Life<'_> {
    fn with<T>(&self, work: impl FnOnce(&Channel, &mut State) -> T) -> Option<T> {
        let is_it = |channel: &Channel| channel.id == self.id;
        self.hub
            .channels
            .with(&self.name, |channel, state| is_it(channel).then(|| work(channel, state)))?
    }
}

/// Brings what a stream has and the channel not.
async fn bring(
    broker: &Broker,
    life: &Life<'_>,
    (from, asked): (Option<Position>, Instant),
    Stream { position, mut entries }: Stream,
) {
    let from = from.filter(|from| from.epoch == position.epoch);
    if has_other_end(life, from.as_ref(), &mut entries) {
        // Its offsets were given twice, as after a failover: it must become another stream.
        let ahead = Position { offset: BEYOND_ALL, epoch: position.epoch };
        life.with(|_, state| life.hub.channels.begin(state, ahead));
        return broker.channels.add(life.name.clone());
    }
    let top = position.offset;
    let first = entries.front().map_or(top + 1, |entry| entry.offset);
    let goes_on = from.is_some_and(|from| from.offset <= top && from.offset + 1 >= first);
    if !goes_on {
        // What was before is another stream, or lacks its end.
        begin(life, Position { offset: first - 1, epoch: position.epoch.clone() }).await;
    }
    if life.has_subscribers {
        let BrokerStats { repaired, interrupted, .. } = &broker.stats;
        BrokerStats::count(if goes_on { repaired } else { interrupted });
    }
    let reached = entries.back().map_or(top, |entry| entry.offset);
    // Of another stream, or with a gap before it, nothing is news to who was there.
    let is_news = goes_on && life.has_subscribers;
    for Remembered { offset, body, age } in entries {
        let position = Position { offset, epoch: position.epoch.clone() };
        let envelope = Envelope::read(&body, position);
        match envelope.and_then(Envelope::into_publication) {
            Some(publication) => append(life, publication, age, is_news).await,
            None => BrokerStats::count(&broker.stats.malformed),
        }
    }
    let is_all = life.with(|_, state| {
        let is_all = reached >= top && finish(state, &position, asked);
        if let Some(mirror) = state.mirror.as_mut().filter(|_| !is_all) {
            mirror.take_position();
        }
        is_all
    });
    if is_all == Some(false) {
        broker.channels.add(life.name.clone());
    }
}

/// Whether what a stream has where its mirror stands, which is taken off, is not what the mirror has there.
fn has_other_end(
    life: &Life<'_>,
    from: Option<&Position>,
    entries: &mut VecDeque<Remembered>,
) -> bool {
    let Some(from) = from else { return false };
    let echo = entries.pop_front_if(|entry| entry.offset == from.offset);
    echo.is_some_and(|echo| !is_latest(life, &echo, from))
}

/// Whether the entry at a channel's position is the publication that it has there, if it still has that.
fn is_latest(life: &Life<'_>, entry: &Remembered, from: &Position) -> bool {
    let envelope = Envelope::read(&entry.body, from.clone());
    let Some(publication) = envelope.and_then(Envelope::into_publication) else { return false };
    let is_latest = life.with(|_, state| {
        let latest = state.history.latest().filter(|latest| latest.offset == from.offset);
        latest.is_none_or(|latest| latest.data == publication.data)
    });
    is_latest.unwrap_or(true)
}

/// Has a channel go on from another position. Subscriptions that count on lacking nothing end.
async fn begin(life: &Life<'_>, position: Position) {
    let hub = life.hub;
    let room = hub.ring.room().wait(0).await;
    life.with(|channel, state| {
        hub.channels.begin(state, position);
        if state.subscribers() > 0 {
            interrupt(hub, channel, state, room);
        }
    });
}

/// Appends what a stream has next, and brings it to those who are there.
async fn append(life: &Life<'_>, publication: Publication, age: Duration, is_news: bool) {
    let hub = life.hub;
    let size = hub.ring_bytes(publication.size());
    let room = if is_news { Some(hub.ring.room().wait(size).await) } else { None };
    life.with(|channel, state| {
        if publication.offset > state.history.next_offset() {
            // What lies between is nothing that a node has written.
            let Position { offset, epoch } = publication.position();
            hub.channels.begin(state, Position { offset: offset - 1, epoch });
            state.take_sequence();
        }
        match room {
            _ if publication.offset < state.history.next_offset() => {}
            Some(room) => post(hub, channel, state, publication, age, room),
            None => drop(hub.channels.take(channel, state, publication, age)),
        }
    });
}

/// Appends a publication that is the next, and gives it to the ring.
pub(super) fn post(
    hub: &Inner,
    channel: &Channel,
    state: &mut State,
    publication: Publication,
    age: Duration,
    room: Reservation,
) {
    let publication = hub.channels.take(channel, state, publication, age);
    let sequence = state.take_sequence();
    let post = Post { channel: channel.id, sequence, content: Content::from(publication) };
    hub.send(room, Load::Post(post));
}

/// Ends the subscriptions that count on lacking nothing: a number is left out, which the pump sees by
/// what comes after it.
fn interrupt(hub: &Inner, channel: &Channel, state: &mut State, room: Reservation) {
    state.take_sequence();
    let sequence = state.take_sequence();
    let post = Post { channel: channel.id, sequence, content: Content::Nothing };
    hub.ring.send(room, Load::Post(post));
}

/// Says that a stream, asked then, had no more than up to a position; false if more has come since.
fn finish(state: &mut State, position: &Position, asked: Instant) -> bool {
    state.mirror.as_mut().is_none_or(|mirror| mirror.catch_up(position, asked))
}

/// An offset that no stream comes to, and that scripts count with exactly.
const BEYOND_ALL: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Hub};

    #[tokio::test]
    async fn what_was_read_for_a_channel_that_went_is_not_for_the_next_of_its_name() {
        let mut config = Config::default();
        config.channel.history_size = 10;
        let hub = Hub::start(config).unwrap();
        for channel in ["a", "before"] {
            hub.publish(channel, "1").wait().unwrap();
        }
        let id_of = |name| hub.inner.channels.with(name, |channel, _| channel.id).unwrap();
        let end = || hub.inner.channels.with("a", |_, state| state.history.position().offset);
        for (id, offset) in [(id_of("before"), 1), (id_of("a"), 7)] {
            let life = Life { hub: &hub.inner, name: "a".into(), id, has_subscribers: true };
            let mut publication = Publication::new("7".into());
            publication.offset = 7;
            append(&life, publication, Duration::ZERO, false).await;
            assert_eq!(end(), Some(offset));
        }
    }
}
