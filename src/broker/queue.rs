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
}

/// One publish.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) topic: Topic,
    pub(super) body: Bytes,
    pub(super) remember: Option<Remember>,
    /// How many of this node it is for.
    connections: usize,
    /// When it is given up, if it was not sent by then.
    deadline: Instant,
    answer: oneshot::Sender<Result<Published, PublishError>>,
    _reservation: Reservation,
}

/// What the broker is to remember of a publish.
#[derive(Debug)]
pub(crate) struct Remember {
    pub(crate) channel: Arc<str>,
    /// As how much of its channel.
    pub(crate) window: Window,
    /// Under which idempotency key.
    pub(crate) key: Option<String>,
}

impl Queue {
    pub(super) fn new(limits: &Limits, timeout: Duration) -> (Self, Requests) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Room::new(limits.ring_messages, limits.ring_bytes);
        (Self { sender, room, timeout }, Requests { receiver, waiting: VecDeque::new() })
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Leaves a publish to be sent.
    pub(super) fn send(
        &self,
        hub: &Inner,
        topic: Topic,
        body: Bytes,
        remember: Option<Remember>,
        connections: usize,
        share: Option<&Arc<Share>>,
    ) -> Result<Answer, PublishError> {
        if hub.phase() != Phase::Open {
            return Err(PublishError::Closed);
        }
        self.push(hub, topic, body, remember, connections, share)
    }

    /// The same, also while the node ends.
    pub(super) fn push(
        &self,
        hub: &Inner,
        topic: Topic,
        body: Bytes,
        remember: Option<Remember>,
        connections: usize,
        share: Option<&Arc<Share>>,
    ) -> Result<Answer, PublishError> {
        let reservation = self.room.reserve(hub.ring_bytes(body.len()), share);
        let _reservation = reservation.ok_or(PublishError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        let request =
            Request { topic, body, remember, connections, deadline, answer, _reservation };
        // The thread that takes it lives as long as the hub does.
        self.sender.send(request).map_err(|_| PublishError::Closed)?;
        Ok(answered)
    }
}

impl Requests {
    /// The next publishes, once there are any.
    pub(super) async fn take(&mut self, most: usize) -> Vec<Request> {
        let mut taken: Vec<_> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        if taken.is_empty() {
            self.receiver.recv_many(&mut taken, most).await;
        }
        taken
    }

    /// Refuses what waits for too long, for as long as nothing can be sent.
    pub(super) async fn expire(&mut self, hub: &Inner) {
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

impl Request {
    /// Whether it is too late to send it.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// The broker has it, at that position if it remembers it.
    pub(super) fn accept(self, Position { offset, epoch }: Position) {
        let published = Published { connections: self.connections, offset, epoch };
        // Who does not wait for it does not mind.
        let _ = self.answer.send(Ok(published));
    }

    /// The broker does not have it, or that is not known.
    pub(super) fn refuse(self, hub: &Inner, error: PublishError) {
        let _ = self.answer.send(Err(hub.stats.refuse(error)));
    }
}
