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

use crate::close::CloseReason;
use crate::connection::{Connection, Connections};
use crate::outbox::{Budget, Burst, Push};
use crate::registry::Targets;
use crate::ring::{Entry, Load, Receiver};
use crate::shard::Shard;

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
        if let Load::Broadcast(frame) = &entry.load {
            self.bytes += frame.len();
        }
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
}

/// One turn's work on the connections, apart from shard and sockets so that it can be tested.
pub(crate) struct Turn<'a> {
    pub(crate) shard: u16,
    pub(crate) connections: &'a Connections,
    pub(crate) budget: &'a Rc<Budget>,
    pub(crate) max_bytes: usize,
    pub(crate) now: u64,
}

impl Turn<'_> {
    /// Puts a batch into the outboxes. Broadcasts share one burst; a connection that is addressed
    /// between them first gets the burst up to there, so that order holds.
    pub(crate) fn deliver(&self, batch: &Batch) -> Outcome {
        let mut outcome = Outcome::default();
        let burst = self.join(batch);
        self.address(batch, burst.as_ref(), &mut outcome);
        if let Some(burst) = burst {
            self.fan_out(batch, &burst, &mut outcome);
        }
        outcome
    }

    /// The broadcasts of a batch as one burst.
    fn join(&self, batch: &Batch) -> Option<Rc<Burst>> {
        let mut frames = broadcasts(batch);
        let first = frames.next()?;
        let Some(second) = frames.next() else {
            return Some(Burst::lone(first.clone(), self.now, self.budget));
        };
        let mut bytes = Vec::with_capacity(batch.bytes);
        let mut ends = Vec::with_capacity(batch.entries.len());
        for frame in [first, second].into_iter().chain(frames) {
            bytes.extend_from_slice(frame);
            ends.push(bytes.len() as u32);
        }
        Some(Burst::joined(bytes, ends, self.now, self.budget))
    }

    /// The rest of the burst to every connection.
    fn fan_out(&self, batch: &Batch, burst: &Rc<Burst>, outcome: &mut Outcome) {
        let (frames, end) = (burst.frames_from(0) as u64, burst.len());
        for (_, connection) in &*self.connections.slots() {
            let start = begin(connection, batch, burst);
            connection.given.set(0);
            if start >= end {
                continue;
            }
            match connection.outbox.borrow_mut().push(burst, start, end, self.max_bytes) {
                Push::Queued if start == 0 => outcome.deliveries += frames,
                Push::Queued => outcome.deliveries += burst.frames_from(start) as u64,
                Push::Full => outcome.closes.push((connection.clone(), CloseReason::SLOW)),
                Push::Closing => {}
            }
        }
    }

    /// What goes to some connections only, in the order of the batch.
    fn address(&self, batch: &Batch, burst: Option<&Rc<Burst>>, outcome: &mut Outcome) {
        let mut before = 0;
        for entry in &batch.entries {
            match &entry.load {
                Load::Broadcast(frame) => before += frame.len() as u32,
                Load::Probe(probe) => probe.arrive(),
                Load::Unicast(targets, frame) => {
                    let living = self.living(targets, &mut outcome.stale);
                    if living.is_empty() {
                        continue;
                    }
                    let unicast = Burst::lone(frame.clone(), self.now, self.budget);
                    for connection in living {
                        self.catch_up(&connection, batch, burst, before, outcome);
                        if connection.given.get() != CLOSED {
                            self.push(&connection, &unicast, 0, unicast.len(), outcome);
                        }
                    }
                }
                Load::Close(targets, reason) => {
                    for connection in self.living(targets, &mut outcome.stale) {
                        self.catch_up(&connection, batch, burst, before, outcome);
                        connection.given.set(CLOSED);
                        outcome.closes.push((connection, reason.clone()));
                    }
                }
            }
        }
    }

    /// Gives a connection the burst up to byte `before`, as far as it has not had it.
    fn catch_up(
        &self,
        connection: &Rc<Connection>,
        batch: &Batch,
        burst: Option<&Rc<Burst>>,
        before: u32,
        outcome: &mut Outcome,
    ) {
        let Some(burst) = burst else { return };
        let start = begin(connection, batch, burst);
        if start < before {
            connection.given.set(before);
            self.push(connection, burst, start, before, outcome);
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
    if connection.since <= batch.entries[0].position {
        return given;
    }
    given.max(unseen(batch, burst, connection.since))
}

fn broadcasts(batch: &Batch) -> impl Iterator<Item = &Bytes> {
    batch.entries.iter().filter_map(|entry| match &entry.load {
        Load::Broadcast(frame) => Some(frame),
        Load::Close(..) | Load::Probe(_) | Load::Unicast(..) => None,
    })
}

/// Bytes at the burst's begin that were admitted before a connection opened.
fn unseen(batch: &Batch, burst: &Burst, since: u64) -> u32 {
    let is_broadcast = |entry: &&Arc<Entry>| matches!(entry.load, Load::Broadcast(_));
    let mut entries = batch.entries.iter().filter(is_broadcast);
    entries.position(|entry| entry.position >= since).map_or(burst.len(), |i| burst.frame_start(i))
}

/// Bytes after which a burst is closed: as much as one send usefully carries.
const BURST_BYTES: usize = 64 << 10;

/// Entries after which a turn ends, so that a flood of small ones does not hold up the writers.
const BURST_ENTRIES: usize = 1024;

/// Stands in [`Connection::given`] for a connection that the batch closes: whatever comes after
/// was made after the close.
const CLOSED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::connection::Life;
    use crate::registry::Registry;
    use crate::ring::{Probe, Ring};
    use crate::user::{Identity, UserId};

    /// A shard without sockets: connections whose outboxes are read directly.
    struct Rig {
        ring: Ring,
        receiver: Receiver,
        connections: Connections,
        registry: Registry,
        budget: Rc<Budget>,
    }

    impl Rig {
        fn new() -> Self {
            let ring = Ring::new(1024, 1 << 20);
            let receiver = ring.subscribe();
            let registry = Registry::new(Duration::ZERO);
            let (connections, budget) = (Connections::default(), Rc::default());
            Self { ring, receiver, connections, registry, budget }
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
            self.send(Load::Broadcast(Bytes::copy_from_slice(frame.as_bytes())));
        }

        fn unicast(&self, user: i32, frame: &str) {
            let targets = self.registry.targets(&UserId::from(user)).unwrap();
            self.send(Load::Unicast(targets, Bytes::copy_from_slice(frame.as_bytes())));
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
            let Self { connections, budget, .. } = &*self;
            Turn { shard: 0, connections, budget, max_bytes, now: 1 }.deliver(&batch)
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
        String::from_utf8(taken).unwrap()
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
