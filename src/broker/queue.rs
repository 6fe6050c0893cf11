//! Publishes on their way to the broker: in order, bounded, and each for a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::topic::Topic;
use crate::channel::history::{Position, Window};
use crate::config::Limits;
use crate::error::PublishError;
use crate::hub::publish::Published;
use crate::hub::{Inner, Phase};
use crate::ring::{Reservation, Room, Share};

/// What the broker's answer comes by.
pub(super) type Answer = oneshot::Receiver<Result<Published, PublishError>>;

/// The publishers' side.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Request>,
    /// As much may wait here as in the ring.
    room: Arc<Room>,
    timeout: Duration,
}

/// The side of the thread that sends.
#[derive(Debug)]
pub(super) struct Requests {
    receiver: mpsc::UnboundedReceiver<Request>,
    waiting: VecDeque<Request>,
    /// What was sent, and is not answered.
    sent: Vec<Request>,
}

/// What goes to the broker.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: Topic,
    pub(super) body: Bytes,
    pub(super) remember: Option<Remember>,
    /// How many of this node it is for.
    pub(super) connections: usize,
}

/// One publish.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) outgoing: Outgoing,
    /// When it is given up, if it was not sent by then.
    deadline: Instant,
    answer: oneshot::Sender<Result<Published, PublishError>>,
    _reservation: Reservation,
}

/// What the broker is to remember of a publish.
#[derive(Debug)]
pub(super) struct Remember {
    pub(super) channel: Arc<str>,
    /// As how much of its channel; if none, only that the key was given.
    pub(super) window: Window,
    /// Under which idempotency key.
    pub(super) key: Option<String>,
}

impl Queue {
    pub(super) fn new(limits: &Limits, timeout: Duration) -> (Self, Requests) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Room::new(limits.ring_messages, limits.ring_bytes);
        (
            Self { sender, room, timeout },
            Requests { receiver, waiting: VecDeque::new(), sent: Vec::new() },
        )
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Leaves a publish to be sent.
    pub(super) fn send(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
        share: Option<&Arc<Share>>,
    ) -> Result<Answer, PublishError> {
        let reservation = self.reserve(hub, &outgoing, share);
        // Looked at after reserving, as a drain waits for all that reserved before it began.
        if hub.phase() != Phase::Open {
            return Err(PublishError::Closed);
        }
        self.push(outgoing, reservation?)
    }

    /// The same, also while the node ends, and for nobody's share.
    pub(super) fn send_at_any_time(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
    ) -> Result<Answer, PublishError> {
        let reservation = self.reserve(hub, &outgoing, None)?;
        self.push(outgoing, reservation)
    }

    /// The same, once there is room.
    pub(super) async fn send_patiently(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
    ) -> Result<Answer, PublishError> {
        let reservation = self.room.wait(hub.ring_bytes(outgoing.body.len())).await;
        self.push(outgoing, reservation)
    }

    fn reserve(
        &self,
        hub: &Inner,
        outgoing: &Outgoing,
        share: Option<&Arc<Share>>,
    ) -> Result<Reservation, PublishError> {
        let reservation = self.room.reserve(hub.ring_bytes(outgoing.body.len()), share);
        reservation.ok_or(PublishError::Overloaded)
    }

    fn push(&self, outgoing: Outgoing, _reservation: Reservation) -> Result<Answer, PublishError> {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        let request = Request { outgoing, deadline, answer, _reservation };
        // The thread that takes it lives as long as the hub does.
        self.sender.send(request).map_err(|_| PublishError::Closed)?;
        Ok(answered)
    }
}

impl Requests {
    /// The next publishes to send, once there are any; of those before none may be left.
    pub(super) async fn next(&mut self, hub: &Inner, most: usize) -> &[Request] {
        self.sent.extend(self.waiting.drain(..most.min(self.waiting.len())));
        if self.sent.is_empty() {
            self.receiver.recv_many(&mut self.sent, most).await;
        }
        let now = Instant::now();
        for overdue in self.sent.extract_if(.., |request| request.deadline <= now) {
            overdue.refuse(hub, PublishError::Unavailable);
        }
        &self.sent
    }

    /// Those that were sent, to be answered.
    pub(super) fn sent(&mut self) -> impl Iterator<Item = Request> {
        self.sent.drain(..)
    }

    /// Refuses what waits for too long, for as long as nothing can be sent; of what was sent nobody will
    /// know any more.
    pub(super) async fn expire(&mut self, hub: &Inner) {
        self.sent().for_each(|request| request.refuse(hub, PublishError::Uncertain));
        loop {
            let now = Instant::now();
            while let Some(request) = self.waiting.pop_front_if(|it| it.deadline <= now) {
                request.refuse(hub, PublishError::Unavailable);
            }
            let next = self.waiting.front().map(|request| request.deadline);
            let next = async {
                match next {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = self.receiver.recv() => match request {
                    Some(request) => self.waiting.push_back(request),
                    None => return,
                },
                () = next => {}
            }
        }
    }
}

impl Remember {
    /// What there is to remember, if anything.
    pub(super) fn new(channel: &str, window: Window, key: Option<&str>) -> Option<Self> {
        let key = key.map(str::to_owned);
        (window.is_open() || key.is_some()).then(|| Self { channel: channel.into(), window, key })
    }
}

impl Request {
    /// The broker has it, at that position if it remembers it.
    pub(super) fn accept(self, Position { offset, epoch }: Position) {
        let published = Published { connections: self.outgoing.connections, offset, epoch };
        // Who does not wait for it does not mind.
        let _ = self.answer.send(Ok(published));
    }

    /// The broker does not have it, or that is not known.
    pub(super) fn refuse(self, hub: &Inner, error: PublishError) {
        let _ = self.answer.send(Err(hub.stats.refuse(error)));
    }
}
