//! Publishes on their way to the broker: in order, bounded, and each for a time.

use std::collections::VecDeque;
use std::iter::repeat;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::topic::Topic;
use crate::channel::history::Window;
use crate::config::Limits;
use crate::error::PublishError;
use crate::hub::publish::Published;
use crate::hub::{Inner, Phase};
use crate::ring::{Audience, Reservation, Room, Share};

/// What the broker's answer to each publish of a request comes by.
pub(super) type Answer = oneshot::Receiver<Vec<Result<Published, PublishError>>>;

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
pub(crate) struct Outgoing {
    pub(super) topic: Topic,
    pub(super) body: Bytes,
    pub(super) remember: Option<Remember>,
    /// Who it is for, if it goes by the topic of all.
    pub(super) audience: Audience,
}

/// One publish, or several of one publisher, which are answered together.
#[derive(Debug)]
pub(super) struct Request {
    publishes: Vec<Outgoing>,
    reservation: Reservation,
    /// When it is given up, if it was not sent by then.
    deadline: Instant,
    answer: oneshot::Sender<Vec<Result<Published, PublishError>>>,
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
        let room = self.take_room(hub, &outgoing, share);
        let room = admitted(hub, room)?;
        self.push(vec![outgoing], room)
    }

    /// The same, also while the node ends, and for nobody's share.
    pub(super) fn send_at_any_time(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
    ) -> Result<Answer, PublishError> {
        let room = self.take_room(hub, &outgoing, None).ok_or(PublishError::Overloaded)?;
        self.push(vec![outgoing], room)
    }

    /// The same, once there is room.
    pub(super) async fn send_patiently(
        &self,
        hub: &Inner,
        outgoing: Outgoing,
    ) -> Result<Answer, PublishError> {
        let room = self.room.wait(hub.ring_bytes(outgoing.body.len())).await;
        self.push(vec![outgoing], room)
    }

    /// Takes room for publishes that go together, while the node does not end.
    pub(super) fn reserve_together(
        &self,
        hub: &Inner,
        publishes: &[Outgoing],
    ) -> Result<Reservation, PublishError> {
        let sizes = publishes.iter().map(|outgoing| hub.ring_bytes(outgoing.body.len()));
        admitted(hub, self.room.reserve_together(sizes))
    }

    /// Leaves a request to be sent.
    pub(super) fn push(
        &self,
        publishes: Vec<Outgoing>,
        reservation: Reservation,
    ) -> Result<Answer, PublishError> {
        let (answer, answered) = oneshot::channel();
        let deadline = self.deadline();
        // The thread that takes it lives as long as the hub does.
        let pushed = self.sender.send(Request { publishes, reservation, deadline, answer });
        pushed.map_err(|_| PublishError::Closed)?;
        Ok(answered)
    }

    /// When is given up what begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn take_room(
        &self,
        hub: &Inner,
        outgoing: &Outgoing,
        share: Option<&Arc<Share>>,
    ) -> Option<Reservation> {
        self.room.reserve(hub.ring_bytes(outgoing.body.len()), share)
    }
}

impl Requests {
    /// The next requests to send, once there are any, until they have so many publishes or more; of those
    /// before none may be left.
    pub(super) async fn next(&mut self, hub: &Inner, enough: usize) -> &[Request] {
        let mut count = 0;
        while count < enough {
            let next = match self.waiting.pop_front() {
                None if count == 0 => self.receiver.recv().await,
                None => self.receiver.try_recv().ok(),
                waiting => waiting,
            };
            let Some(request) = next else { break };
            count += request.publishes.len();
            self.sent.push(request);
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
    pub(super) fn publishes(&self) -> impl Iterator<Item = &Outgoing> {
        self.publishes.iter()
    }

    /// Tells of each what became of it: the first so many answers.
    pub(super) fn answer(
        self,
        hub: &Inner,
        answers: impl Iterator<Item = Result<Published, PublishError>>,
    ) {
        let answers = answers.take(self.publishes.len());
        let answers = answers.map(|answer| answer.map_err(|error| hub.stats.refuse(error)));
        let answers = answers.collect();
        // First, as who is answered may have more to send.
        drop(self.reservation);
        // Who does not wait for it does not mind.
        let _ = self.answer.send(answers);
    }

    /// The broker does not have them, or that is not known.
    pub(super) fn refuse(self, hub: &Inner, error: PublishError) {
        self.answer(hub, repeat(Err(error)));
    }
}

/// What room was taken, if the node does not end.
fn admitted(hub: &Inner, room: Option<Reservation>) -> Result<Reservation, PublishError> {
    // Looked at after reserving, as a drain waits for all that reserved before it began.
    if hub.phase() != Phase::Open {
        return Err(PublishError::Closed);
    }
    room.ok_or(PublishError::Overloaded)
}
