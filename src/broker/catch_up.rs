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
use crate::channel::{Channel, State};
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
        let Some(Behind { window, from, has_subscribers }) = behind(hub, name) else { continue };
        if window.is_open() {
            let read = Read { channel: name.clone(), from, ttl: window.ttl };
            reads.push((read, has_subscribers));
            continue;
        }
        if has_subscribers {
            // No publication of it has a position, which would tell whether anything lacks.
            BrokerStats::count(&broker.stats.possible_gaps);
        }
        hub.channels.with(name, |_, state| finish(state, &Position::default(), asked));
    }
    let mut failed = Vec::new();
    let streams = session.read(reads.iter().map(|(read, _)| read)).await?;
    for ((read, has_subscribers), stream) in reads.into_iter().zip(streams) {
        match stream {
            Ok(stream) => bring(hub, broker, (read, asked), stream, has_subscribers).await,
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
    window: Window,
    /// Where its mirror stands.
    from: Option<Position>,
    has_subscribers: bool,
}

/// How far a channel is behind; `None` if it is current or gone.
fn behind(hub: &Inner, name: &str) -> Option<Behind> {
    let window = hub.config.namespace(name)?.window();
    hub.channels.with(name, |_, state| {
        let mirror = state.mirror.as_ref().filter(|mirror| !mirror.is_current())?;
        let from = mirror.has_position().then(|| state.history.position());
        Some(Behind { window, from, has_subscribers: state.subscribers() > 0 })
    })?
}

/// Brings what a stream has and the channel not.
async fn bring(
    hub: &Arc<Inner>,
    broker: &Broker,
    (Read { channel, from, .. }, asked): (Read, Instant),
    Stream { position, mut entries }: Stream,
    has_subscribers: bool,
) {
    let from = from.filter(|from| from.epoch == position.epoch);
    if has_other_end(hub, &channel, from.as_ref(), &mut entries) {
        // Its offsets were given twice, as after a failover: it must become another stream.
        let ahead = Position { offset: BEYOND_ALL, epoch: position.epoch };
        hub.channels.with(&channel, |_, state| hub.channels.begin(state, ahead));
        return broker.channels.add(channel);
    }
    let top = position.offset;
    let first = entries.front().map_or(top + 1, |entry| entry.offset);
    let goes_on = from.is_some_and(|from| from.offset <= top && from.offset + 1 >= first);
    if !goes_on {
        // What was before is another stream, or lacks its end.
        begin(hub, &channel, Position { offset: first - 1, epoch: position.epoch.clone() }).await;
    }
    if has_subscribers {
        let BrokerStats { repaired, interrupted, .. } = &broker.stats;
        BrokerStats::count(if goes_on { repaired } else { interrupted });
    }
    let reached = entries.back().map_or(top, |entry| entry.offset);
    // Of another stream, or with a gap before it, nothing is news to who was there.
    let is_news = goes_on && has_subscribers;
    for Remembered { offset, body, age } in entries {
        let position = Position { offset, epoch: position.epoch.clone() };
        let envelope = Envelope::read(&body, position);
        match envelope.and_then(Envelope::into_publication) {
            Some(publication) => append(hub, &channel, publication, age, is_news).await,
            None => BrokerStats::count(&broker.stats.malformed),
        }
    }
    let is_all = hub.channels.with(&channel, |_, state| {
        let is_all = reached >= top && finish(state, &position, asked);
        if let Some(mirror) = state.mirror.as_mut().filter(|_| !is_all) {
            mirror.take_position();
        }
        is_all
    });
    if is_all == Some(false) {
        broker.channels.add(channel);
    }
}

/// Whether what a stream has where its mirror stands, which is taken off, is not what the mirror has there.
fn has_other_end(
    hub: &Inner,
    channel: &str,
    from: Option<&Position>,
    entries: &mut VecDeque<Remembered>,
) -> bool {
    let Some(from) = from else { return false };
    let echo = entries.pop_front_if(|entry| entry.offset == from.offset);
    echo.is_some_and(|echo| !is_latest(hub, channel, &echo, from))
}

/// Whether the entry at a channel's position is the publication that it has there, if it still has that.
fn is_latest(hub: &Inner, name: &str, entry: &Remembered, from: &Position) -> bool {
    let envelope = Envelope::read(&entry.body, from.clone());
    let Some(publication) = envelope.and_then(Envelope::into_publication) else { return false };
    let is_latest = hub.channels.with(name, |_, state| {
        let latest = state.history.latest().filter(|latest| latest.offset == from.offset);
        latest.is_none_or(|latest| latest.data == publication.data)
    });
    is_latest.unwrap_or(true)
}

/// Has a channel go on from another position. Subscriptions that count on lacking nothing end.
async fn begin(hub: &Inner, name: &str, position: Position) {
    let room = hub.ring.room().wait(0).await;
    hub.channels.with(name, |channel, state| {
        hub.channels.begin(state, position);
        if state.subscribers() > 0 {
            interrupt(hub, channel, state, room);
        }
    });
}

/// Appends what a stream has next, and brings it to those who are there.
async fn append(hub: &Inner, name: &str, publication: Publication, age: Duration, is_news: bool) {
    let size = hub.ring_bytes(publication.size());
    let room = if is_news { Some(hub.ring.room().wait(size).await) } else { None };
    hub.channels.with(name, |channel, state| {
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
