//! What benches, fuzz targets and tests of faults see of the engine's inside. No part of the API: it may change at any time.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::channel::history::{Position, Window};
use crate::channel::post::{Content, Post};
use crate::channel::publication::Publication;
use crate::channel::{Channel, Channels, TooManyChannels};
use crate::connection::{Connection, Connections, Life};
use crate::hub::Hub;
use crate::message::{Encoding, Message};
use crate::outbox::Budget;
use crate::protocol::centrifuge::{self, Command, Request};
use crate::pump::{Batch, Turn};
pub use crate::registry::{ConnectionId, Duty, Presence, Registry, Targets};
use crate::ring::{Audience, Load, Receiver, Ring};
use crate::subscription::subscribers::{Subscriber, Subscribers};
use crate::user::{Identity, UserId};

/// A shard without sockets, from publish to outboxes.
#[derive(Debug)]
pub struct FanOut {
    ring: Ring,
    receiver: Receiver,
    channels: Channels,
    connections: Connections,
    subscribers: Subscribers,
    budget: Rc<Budget>,
    batch: Batch,
}

impl FanOut {
    /// As many connections, all of the same identity.
    pub fn new(connections: usize, identity: &Identity) -> Self {
        let ring = Ring::new(1 << 16, 1 << 30);
        let receiver = ring.subscribe();
        let slab = Connections::default();
        for _ in 0..connections {
            slab.insert(0, |id| Connection::new(id, identity.clone(), 0, Life::default()));
        }
        Self {
            ring,
            receiver,
            channels: Channels::new(usize::MAX, 0),
            connections: slab,
            subscribers: Subscribers::default(),
            budget: Rc::default(),
            batch: Batch::default(),
        }
    }

    /// As many connections, each subscribed to one of the channels `0`, `1` and so on in turn.
    pub fn on_channels(connections: usize, channels: usize) -> Self {
        let fan_out = Self::new(0, &Identity::new(UserId::from(1)));
        for index in 0..connections {
            let make = |id| Connection::unidentified(id, Encoding::Centrifuge, Life::default());
            let connection = fan_out.connections.insert(0, make);
            let name = (index % channels).to_string();
            let subscribe =
                |channel: &Arc<Channel>, _: &mut _| Ok::<_, TooManyChannels>(channel.id);
            let window = Window::default();
            let Ok(channel) = fan_out.channels.subscribe_with(&name, window, subscribe) else {
                continue;
            };
            let (since, hears_join_leave, is_positioned) = (0, false, true);
            let subscriber = Subscriber { connection, since, hears_join_leave, is_positioned };
            fan_out.subscribers.insert(channel, subscriber);
        }
        fan_out
    }

    /// Admits one publish to a channel; false without room, or without such a channel.
    pub fn publish_to(&self, channel: usize, data: &Bytes) -> bool {
        let Some(reservation) = self.ring.reserve(data.len(), None) else { return false };
        let name = channel.to_string();
        let publication = Publication::new(data.clone());
        let posted = self.channels.with(&name, |channel, state| {
            let publication = publication.at(&channel.name, Position::default());
            let content = Content::from(Arc::new(publication));
            let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
            self.ring.send(reservation, Load::Post(post));
        });
        posted.is_some()
    }

    /// Admits one broadcast; false without room.
    pub fn publish(&self, message: &Message) -> bool {
        let Some(reservation) = self.ring.reserve(message.len(), None) else { return false };
        message.frame();
        self.ring.send(reservation, Load::Broadcast(message.clone(), Audience::Everyone, None));
        true
    }

    /// One pump turn over all that was published; returns the deliveries.
    pub fn turn(&mut self) -> u64 {
        while let Some(entry) = self.receiver.try_recv() {
            self.batch.take(entry);
        }
        let Self { connections, subscribers, budget, batch, .. } = self;
        let turn =
            Turn { shard: 0, connections, subscribers, budget, max_bytes: usize::MAX, now: 1 };
        let deliveries = turn.deliver(batch).deliveries;
        batch.clear();
        deliveries
    }

    /// Empties every outbox as its writer would; returns the bytes.
    pub fn drain(&self) -> usize {
        let drain = |connection: &Rc<Connection>| {
            let mut outbox = connection.outbox.borrow_mut();
            let mut bytes = 0;
            while !outbox.is_empty() {
                let length = outbox.front().len();
                outbox.advance(length);
                bytes += length;
            }
            bytes
        };
        self.connections.slots().iter().map(|(_, connection)| drain(connection)).sum()
    }
}

/// What a command of the Centrifuge protocol was understood as.
#[derive(Debug, PartialEq, Eq)]
pub struct Understood {
    /// 0 if it wants no reply.
    pub id: u32,
    /// Empty for a pong.
    pub method: &'static str,
    /// Empty if it names none.
    pub channel: String,
    /// What is published or sent, as it came.
    pub data: Option<String>,
}

/// Reads a frame of commands line by line, up to the first that is none.
pub fn understand(frame: &str) -> impl Iterator<Item = (&str, Understood)> {
    let read = |line| centrifuge::parse(line).ok().map(|command| (line, understood(command)));
    centrifuge::lines(frame).map_while(read)
}

fn understood(command: Command<'_>) -> Understood {
    let (id, request) = match command {
        Command::Pong => return of(0, "", None, None),
        Command::Send(send) => return of(0, "send", None, send.data),
        Command::Request(id, request) => (id, request),
    };
    match request {
        Request::Connect(it) => of(id, "connect", None, it.data),
        Request::Subscribe(it) => of(id, "subscribe", Some(it.channel), it.data),
        Request::Unsubscribe(it) => of(id, "unsubscribe", Some(it.channel), None),
        Request::Publish(it) => of(id, "publish", Some(it.channel), it.data),
        Request::Presence(it) => of(id, "presence", Some(it.channel), None),
        Request::PresenceStats(it) => of(id, "presence_stats", Some(it.channel), None),
        Request::History(it) => of(id, "history", Some(it.channel), None),
        Request::Rpc(it) => of(id, "rpc", None, it.data),
        Request::Refresh(_) => of(id, "refresh", None, None),
        Request::SubRefresh(it) => of(id, "sub_refresh", Some(it.channel), None),
    }
}

fn of(
    id: u32,
    method: &'static str,
    channel: Option<Cow<'_, str>>,
    data: Option<&RawValue>,
) -> Understood {
    let channel = channel.unwrap_or_default().into_owned();
    Understood { id, method, channel, data: data.map(|data| data.get().to_owned()) }
}

/// Takes a place in a channel's order that nothing will fill, as a fault would that lost an entry.
pub fn lose_entry(hub: &Hub, channel: &str) {
    hub.inner.channels.with(channel, |_, state| state.take_sequence());
}

/// A publication as it is pushed to clients of the Centrifuge protocol.
pub fn publication_push(channel: &str, data: &str) -> String {
    let publication = Publication::new(data.to_owned().into());
    centrifuge::publication_push(&publication.at(&channel.into(), Position::default()))
}

/// The message as a frame, which is built now unless it was before.
pub fn encode(message: &Message) -> Bytes {
    message.frame().clone()
}

impl ConnectionId {
    /// A name for a connection that exists in a bench alone.
    pub fn fake(slot: u32) -> Self {
        Self { shard: 0, slot, generation: slot }
    }
}
