//! HOT. A shard's way from the ring to its outboxes.
//!
//! # Cost
//!
//! Per turn: what is ready in the ring is joined into one contiguous burst, one copy of its bytes
//! and three allocations, however many connections there are. Per subscriber and turn: one
//! [`Outbox::push`](crate::outbox::Outbox::push), on a cell of this thread. Nothing is done for
//! connections that are not addressed, and nothing is awaited but the ring.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::channel::ChannelId;
use crate::close::CloseReason;
use crate::connection::{Connection, Connections};
use crate::hub::order::Order;
use crate::message::Encoding;
use crate::outbox::{Budget, Burst, Push};
use crate::registry::Targets;
use crate::ring::{Audience, Entry, Load, Receiver};
use crate::shard::Shard;
use crate::subscription::subscribers::Subscribers;

mod channels;
mod streams;

/// Pumps until the hub is gone: one burst a turn, then the writers' turn.
pub(crate) async fn run(shard: Rc<Shard>, mut ring: Receiver) {
    let mut batch = Batch::default();
    while let Some(entry) = ring.recv().await {
        batch.take(entry);
        while !batch.is_full() {
            let Some(entry) = ring.try_recv() else { break };
            batch.take(entry);
        }
        shard.deliver(&mut batch);
        tokio::task::yield_now().await;
    }
}

/// What one turn takes out of the ring.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Arc<Entry>>,
    /// At most, to one connection; what brings none counts as one.
    frames: usize,
    bytes: usize,
}

impl Batch {
    pub(crate) fn take(&mut self, entry: Arc<Entry>) {
        let (frames, bytes) = match &entry.load {
            Load::Broadcast(message, ..) => (1, message.len() + FRAME_HEADER_MAX),
            Load::Post(post) => (post.count(), post.len() + post.count() * FRAME_HEADER_MAX),
            Load::Close(..) | Load::Order(..) | Load::Probe(_) | Load::Unicast(..) => (1, 0),
        };
        self.frames += frames;
        self.bytes += bytes;
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BURST_BYTES || self.frames >= BURST_FRAMES
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        (self.frames, self.bytes) = (0, 0);
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Frames put into outboxes.
    pub(crate) deliveries: u64,
    /// Unicasts and closes whose connection was gone.
    pub(crate) stale: u64,
    /// Connections to close, in order. A slow consumer may stand here more than once.
    pub(crate) closes: Vec<(Rc<Connection>, CloseReason)>,
    /// Subscriptions that lack something, by connection and channel.
    pub(crate) gaps: Vec<(Rc<Connection>, ChannelId)>,
    /// Channels of which a post never came.
    pub(crate) gapped: u64,
    /// What is to be done after all that, and by whom.
    pub(crate) orders: Vec<(Arc<Order>, Targets)>,
}

/// One turn's work on the connections, apart from shard and sockets so that it can be tested.
pub(crate) struct Turn<'a> {
    pub(crate) shard: u16,
    pub(crate) connections: &'a Connections,
    pub(crate) subscribers: &'a Subscribers,
    pub(crate) budget: &'a Rc<Budget>,
    pub(crate) max_bytes: usize,
    pub(crate) now: u64,
}

impl Turn<'_> {
    /// Puts a batch into the outboxes. Broadcasts share one burst; a connection that is addressed
    /// between them first gets the burst up to there, so that order holds.
    pub(crate) fn deliver(&self, batch: &Batch) -> Outcome {
        let mut outcome = Outcome::default();
        let bursts = Encoding::ALL.map(|encoding| self.join_broadcasts(batch, encoding));
        self.address(batch, &bursts, &mut outcome);
        if bursts.iter().any(Option::is_some) {
            self.fan_out(batch, &bursts, &mut outcome);
        }
        self.post(batch, &mut outcome);
        outcome
    }

    /// The broadcasts of a batch as one burst, if anyone has them in that encoding.
    fn join_broadcasts(&self, batch: &Batch, encoding: Encoding) -> Option<Rc<Burst>> {
        if !self.connections.speak(encoding) {
            return None;
        }
        self.join(broadcasts(batch, encoding), batch.entries.len(), batch.bytes)
    }

    /// So many frames at most as one burst of about so many bytes.
    fn join<'b>(
        &self,
        mut frames: impl Iterator<Item = &'b Bytes>,
        most: usize,
        bytes: usize,
    ) -> Option<Rc<Burst>> {
        let first = frames.next()?;
        let Some(second) = frames.next() else {
            return Some(Burst::lone(first.clone(), self.now, self.budget));
        };
        let mut joined = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(most);
        for frame in [first, second].into_iter().chain(frames) {
            joined.extend_from_slice(frame);
            ends.push(joined.len() as u32);
        }
        Some(Burst::joined(joined, ends, self.now, self.budget))
    }

    /// The rest of the burst to every connection.
    fn fan_out(&self, batch: &Batch, bursts: &Bursts, outcome: &mut Outcome) {
        let frames = bursts.each_ref().map(|burst| burst.as_ref().map_or(0, |b| b.frames_from(0)));
        for (_, connection) in &*self.connections.slots() {
            let encoding = connection.encoding as usize;
            let Some(burst) = &bursts[encoding] else { continue };
            let start = begin(connection, batch, burst);
            connection.given.set(0);
            if start >= burst.len() {
                continue;
            }
            match connection.outbox.borrow_mut().push(burst, start, burst.len(), self.max_bytes) {
                Push::Queued if start == 0 => outcome.deliveries += frames[encoding] as u64,
                Push::Queued => outcome.deliveries += burst.frames_from(start) as u64,
                Push::Full => outcome.closes.push((connection.clone(), CloseReason::SLOW)),
                Push::Closing => {}
            }
        }
    }

    /// What goes to some connections only, in the order of the batch.
    fn address(&self, batch: &Batch, bursts: &Bursts, outcome: &mut Outcome) {
        // Broadcasts so far, as each encoding counts them.
        let mut before = [0; Encoding::ALL.len()];
        for entry in &batch.entries {
            for encoding in Encoding::ALL {
                before[encoding as usize] += usize::from(is_broadcast(entry, encoding));
            }
            match &entry.load {
                Load::Broadcast(..) | Load::Post(_) => {}
                Load::Order(targets, order) => {
                    outcome.orders.push((order.clone(), targets.clone()));
                }
                Load::Probe(probe) => probe.arrive(),
                Load::Unicast(targets, message) => {
                    let mut unicasts = [const { None }; Encoding::ALL.len()];
                    for connection in self.living(targets, &mut outcome.stale) {
                        self.catch_up(&connection, batch, bursts, &before, outcome);
                        if connection.given.get() != CLOSED {
                            let encoding = connection.encoding;
                            let unicast = unicasts[encoding as usize].get_or_insert_with(|| {
                                let frame = message.encoded(encoding).clone();
                                Burst::lone(frame, self.now, self.budget)
                            });
                            self.push(&connection, unicast, 0, unicast.len(), outcome);
                        }
                    }
                }
                Load::Close(targets, reason) => {
                    for connection in self.living(targets, &mut outcome.stale) {
                        self.catch_up(&connection, batch, bursts, &before, outcome);
                        connection.given.set(CLOSED);
                        outcome.closes.push((connection, reason.clone()));
                    }
                }
            }
        }
    }

    /// Gives a connection its burst up to what came before, as far as it has not had it.
    fn catch_up(
        &self,
        connection: &Rc<Connection>,
        batch: &Batch,
        bursts: &Bursts,
        before: &[usize],
        outcome: &mut Outcome,
    ) {
        let encoding = connection.encoding as usize;
        let Some(burst) = &bursts[encoding] else { return };
        let (start, end) = (begin(connection, batch, burst), burst.frame_start(before[encoding]));
        if start < end {
            connection.given.set(end);
            self.push(connection, burst, start, end, outcome);
        }
    }

    fn push(
        &self,
        connection: &Rc<Connection>,
        burst: &Rc<Burst>,
        start: u32,
        end: u32,
        outcome: &mut Outcome,
    ) {
        let push = connection.outbox.borrow_mut().push(burst, start, end, self.max_bytes);
        match push {
            Push::Queued => {
                outcome.deliveries += (burst.frames_from(start) - burst.frames_from(end)) as u64;
            }
            Push::Full => outcome.closes.push((connection.clone(), CloseReason::SLOW)),
            Push::Closing => {}
        }
    }

    /// The targets on this shard whose generation lives; the others are counted.
    fn living(&self, targets: &Targets, stale: &mut u64) -> Vec<Rc<Connection>> {
        let here = targets.as_slice().iter().filter(|id| id.shard == self.shard);
        let found = here.map(|id| self.connections.get(*id));
        found.inspect(|connection| *stale += u64::from(connection.is_none())).flatten().collect()
    }
}

/// The first byte of the burst that a connection has not had and is to have.
fn begin(connection: &Connection, batch: &Batch, burst: &Burst) -> u32 {
    let given = connection.given.get();
    if connection.since.get() <= batch.entries[0].position {
        return given;
    }
    given.max(unseen(batch, burst, connection))
}

/// The frames that a batch brings to everyone of an encoding; each is encoded now at the latest.
fn broadcasts(batch: &Batch, encoding: Encoding) -> impl Iterator<Item = &Bytes> {
    let entries = batch.entries.iter().filter(move |entry| is_broadcast(entry, encoding));
    entries.filter_map(move |entry| match &entry.load {
        Load::Broadcast(message, ..) => Some(message.encoded(encoding)),
        Load::Close(..) | Load::Order(..) | Load::Post(_) | Load::Probe(_) | Load::Unicast(..) => {
            None
        }
    })
}

/// Whether an entry goes to everyone of an encoding.
fn is_broadcast(entry: &Entry, encoding: Encoding) -> bool {
    match &entry.load {
        Load::Broadcast(_, Audience::Everyone, _) => true,
        Load::Broadcast(_, Audience::Chat, _) => encoding == Encoding::Raw,
        Load::Close(..) | Load::Order(..) | Load::Post(_) | Load::Probe(_) | Load::Unicast(..) => {
            false
        }
    }
}

/// Bytes at the burst's begin that were admitted before a connection opened.
fn unseen(batch: &Batch, burst: &Burst, connection: &Connection) -> u32 {
    let entries = batch.entries.iter();
    let mut entries = entries.filter(|entry| is_broadcast(entry, connection.encoding));
    let first_seen = entries.position(|entry| entry.position >= connection.since.get());
    first_seen.map_or(burst.len(), |index| burst.frame_start(index))
}

/// A batch's broadcasts in each encoding that someone there has.
type Bursts = [Option<Rc<Burst>>; Encoding::ALL.len()];

/// Bytes after which a burst is closed: as much as one send usefully carries.
const BURST_BYTES: usize = 64 << 10;

/// Frames after which a turn ends, so that a flood of small ones does not hold up the writers.
const BURST_FRAMES: usize = 1024;

/// Bytes of a frame's header at most (RFC 6455 section 5.2), unmasked.
const FRAME_HEADER_MAX: usize = 10;

/// Stands in [`Connection::given`] for a connection that the batch closes: whatever comes after
/// was made after the close.
const CLOSED: u32 = u32::MAX;

#[cfg(test)]
mod tests;
