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
use crate::message::Encoding;
use crate::order::Order;
use crate::outbox::{Budget, Burst, Push};
use crate::registry::Targets;
use crate::ring::{Audience, Entry, Load, Receiver};
use crate::shard::Shard;
use crate::subscribers::Subscribers;

mod channels;
mod streams;

/// Pumps until the hub is gone: one burst a turn, then the writers' turn.
pub(crate) async fn run(shard: Rc<Shard>, mut ring: Receiver) {
    let mut batch = Batch::default();
    while let Some(entry) = ring.recv().await {
        batch.take(entry);
        while batch.bytes < BURST_BYTES && batch.entries.len() < BURST_ENTRIES {
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
    bytes: usize,
}

impl Batch {
    pub(crate) fn take(&mut self, entry: Arc<Entry>) {
        self.bytes += match &entry.load {
            Load::Broadcast(message, ..) => message.len() + FRAME_HEADER_MAX,
            Load::Post(post) => post.len() + FRAME_HEADER_MAX,
            Load::Close(..) | Load::Order(..) | Load::Probe(_) | Load::Unicast(..) => 0,
        };
        self.entries.push(entry);
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
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
    /// Posts after one that never came.
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
        self.join(broadcasts(batch, encoding), batch.bytes)
    }

    /// Frames as one burst of about so many bytes.
    fn join<'b>(
        &self,
        mut frames: impl Iterator<Item = &'b Bytes>,
        bytes: usize,
    ) -> Option<Rc<Burst>> {
        let first = frames.next()?;
        let Some(second) = frames.next() else {
            return Some(Burst::lone(first.clone(), self.now, self.budget));
        };
        let mut joined = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(frames.size_hint().1.unwrap_or(0) + 2);
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

/// Entries after which a turn ends, so that a flood of small ones does not hold up the writers.
const BURST_ENTRIES: usize = 1024;

/// Bytes of a frame's header at most (RFC 6455 section 5.2), unmasked.
const FRAME_HEADER_MAX: usize = 10;

/// Stands in [`Connection::given`] for a connection that the batch closes: whatever comes after
/// was made after the close.
const CLOSED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::connection::Life;
    use crate::message::Message;
    use crate::registry::Registry;
    use crate::ring::{Probe, Ring};
    use crate::user::{Identity, UserId};

    /// A shard without sockets: connections whose outboxes are read directly.
    struct Rig {
        ring: Ring,
        receiver: Receiver,
        connections: Connections,
        subscribers: Subscribers,
        registry: Registry,
        budget: Rc<Budget>,
    }

    impl Rig {
        fn new() -> Self {
            let ring = Ring::new(1024, 1 << 20);
            let receiver = ring.subscribe();
            let registry = Registry::new(Duration::ZERO);
            let (connections, subscribers) = Default::default();
            Self { ring, receiver, connections, subscribers, registry, budget: Rc::default() }
        }

        fn connect(&self, user: i32) -> Rc<Connection> {
            let identity = Identity::new(UserId::from(user));
            let since = self.ring.position();
            let connection = self
                .connections
                .insert(0, |id| Connection::new(id, identity.clone(), since, Life::default()));
            self.registry.connect(&identity.user, &identity.name, connection.id);
            connection
        }

        fn broadcast(&self, frame: &str) {
            self.send(Load::Broadcast(Message::text(frame), Audience::Everyone, None));
        }

        fn unicast(&self, user: i32, frame: &str) {
            let targets = self.registry.targets(&UserId::from(user)).unwrap();
            self.send(Load::Unicast(targets, Message::text(frame)));
        }

        fn close(&self, user: i32) {
            let targets = self.registry.targets(&UserId::from(user)).unwrap();
            self.send(Load::Close(targets, CloseReason::FORCE_DISCONNECT));
        }

        fn send(&self, load: Load) {
            self.ring.send(self.ring.reserve(0, None).unwrap(), load);
        }

        fn turn(&mut self, max_bytes: usize) -> Outcome {
            let mut batch = Batch::default();
            while let Some(entry) = self.receiver.try_recv() {
                batch.take(entry);
            }
            let Self { connections, subscribers, budget, .. } = &*self;
            Turn { shard: 0, connections, subscribers, budget, max_bytes, now: 1 }.deliver(&batch)
        }
    }

    fn take(connection: &Connection) -> String {
        let mut outbox = connection.outbox.borrow_mut();
        let mut taken = Vec::new();
        while !outbox.is_empty() {
            taken.extend_from_slice(outbox.front());
            let length = outbox.front().len();
            outbox.advance(length);
        }
        payloads(&taken)
    }

    /// What the frames hold, all of them shorter than 126 bytes.
    fn payloads(mut frames: &[u8]) -> String {
        let mut text = String::new();
        while let [_, length, rest @ ..] = frames {
            let (payload, rest) = rest.split_at((*length).into());
            text.push_str(std::str::from_utf8(payload).unwrap());
            frames = rest;
        }
        text
    }

    #[test]
    fn what_is_ready_becomes_one_piece_for_everyone() {
        let mut rig = Rig::new();
        let (a, b) = (rig.connect(1), rig.connect(2));
        for frame in ["one ", "two ", "three "] {
            rig.broadcast(frame);
        }
        let outcome = rig.turn(usize::MAX);
        assert_eq!((outcome.deliveries, a.outbox.borrow().pieces()), (6, 1));
        assert_eq!((take(&a), take(&b)), ("one two three ".into(), "one two three ".into()));
        assert_eq!(rig.budget.used(), 0);
    }

    #[test]
    fn a_unicast_keeps_its_place_among_broadcasts() {
        let mut rig = Rig::new();
        let (a, b) = (rig.connect(1), rig.connect(2));
        rig.unicast(1, "for a ");
        rig.broadcast("one ");
        rig.unicast(1, "for a ");
        rig.broadcast("two ");
        assert_eq!(rig.turn(usize::MAX).deliveries, 6);
        assert_eq!((take(&a), take(&b)), ("for a one for a two ".into(), "one two ".into()));
    }

    #[test]
    fn a_close_ends_what_its_connection_receives() {
        let mut rig = Rig::new();
        let (a, b) = (rig.connect(1), rig.connect(2));
        rig.broadcast("before ");
        rig.close(1);
        rig.broadcast("after ");
        rig.unicast(1, "for a ");
        let outcome = rig.turn(usize::MAX);
        assert_eq!(outcome.closes.len(), 1);
        assert_eq!((take(&a), take(&b)), ("before ".into(), "before after ".into()));
    }

    #[test]
    fn a_publish_before_the_connect_is_not_seen() {
        let mut rig = Rig::new();
        let a = rig.connect(1);
        rig.broadcast("early ");
        let b = rig.connect(2);
        rig.broadcast("late ");
        rig.unicast(2, "for b ");
        assert_eq!(rig.turn(usize::MAX).deliveries, 4);
        assert_eq!((take(&a), take(&b)), ("early late ".into(), "late for b ".into()));
    }

    #[test]
    fn a_slow_consumer_is_told_apart_and_delays_no_one() {
        let mut rig = Rig::new();
        let (slow, quick) = (rig.connect(1), rig.connect(2));
        rig.broadcast("one");
        rig.turn(100);
        take(&quick);
        rig.broadcast("two");
        let outcome = rig.turn(100);
        assert_eq!(outcome.closes.len(), 1);
        assert_eq!(outcome.closes[0].0.id, slow.id);
        assert_eq!(outcome.closes[0].1, CloseReason::SLOW);
        assert_eq!(take(&quick), "two");
    }

    #[test]
    fn what_is_addressed_to_a_connection_that_went_is_dropped_and_counted() {
        let mut rig = Rig::new();
        let gone = rig.connect(1);
        rig.unicast(1, "late");
        rig.connections.remove(gone.id);
        let next = rig.connect(2);
        assert_eq!(next.id.slot, gone.id.slot);
        assert_eq!(rig.turn(usize::MAX).stale, 1);
        assert_eq!(take(&next), "");
    }

    #[tokio::test]
    async fn a_probe_sees_the_pump_turn() {
        let mut rig = Rig::new();
        let probe = Arc::new(Probe::new(1));
        rig.send(Load::Probe(probe.clone()));
        rig.turn(usize::MAX);
        probe.complete().await;
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Broadcast,
        Close(i32),
        Connect(i32),
        Turn,
        Unicast(i32),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => Just(Operation::Broadcast),
            1 => (0..4).prop_map(Operation::Close),
            2 => (0..4).prop_map(Operation::Connect),
            2 => Just(Operation::Turn),
            4 => (0..4).prop_map(Operation::Unicast),
        ]
    }

    proptest! {
        /// Against a naive model, a text for each connection that every publish is appended to at
        /// once: however publishes are batched into turns, each receives the same text.
        #[test]
        fn agrees_with_a_naive_model(operations in prop::collection::vec(operation(), 1..100)) {
            let mut rig = Rig::new();
            let mut open: Vec<(i32, Rc<Connection>, String)> = Vec::new();
            let mut closed: Vec<(Rc<Connection>, String)> = Vec::new();
            for (step, operation) in operations.into_iter().enumerate() {
                let frame = format!("{step} ");
                match operation {
                    Operation::Connect(user) => open.push((user, rig.connect(user), String::new())),
                    Operation::Broadcast => {
                        rig.broadcast(&frame);
                        open.iter_mut().for_each(|(.., text)| text.push_str(&frame));
                    }
                    Operation::Unicast(user) if open.iter().any(|(u, ..)| *u == user) => {
                        rig.unicast(user, &frame);
                        let addressed = open.iter_mut().filter(|(u, ..)| *u == user);
                        addressed.for_each(|(.., text)| text.push_str(&frame));
                    }
                    Operation::Close(user) if open.iter().any(|(u, ..)| *u == user) => {
                        rig.close(user);
                        for (_, connection, text) in open.extract_if(.., |(u, ..)| *u == user) {
                            rig.registry.disconnect(&UserId::from(user), connection.id);
                            closed.push((connection, text));
                        }
                    }
                    Operation::Turn => {
                        for (connection, _) in rig.turn(usize::MAX).closes {
                            rig.connections.remove(connection.id);
                        }
                    }
                    Operation::Close(_) | Operation::Unicast(_) => {}
                }
            }
            rig.turn(usize::MAX);
            for (connection, text) in open.iter().map(|(_, c, text)| (c, text)).chain(closed.iter().map(|(c, text)| (c, text))) {
                prop_assert_eq!(&take(connection), text);
            }
            prop_assert_eq!(rig.budget.used(), 0);
        }
    }
}
