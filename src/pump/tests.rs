//! What a batch brings to whom, and in which order.

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
