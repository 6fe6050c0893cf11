//! Publishes of one call: under way beside each other, so that the broker is waited for once.

use std::mem;
use std::time::Instant;

use super::queue::{Answer, Outgoing, Queue};
use crate::error::PublishError;
use crate::hub::Inner;
use crate::hub::publish::Published;
use crate::ring::Reservation;

/// Publishes in their order.
pub(crate) struct Together<'q> {
    queue: &'q Queue,
    /// When it is over, if it had to wait for room: then no more is left to be sent.
    deadline: Instant,
    is_over: bool,
    /// What goes next, as one request.
    part: Vec<Outgoing>,
    /// What went: how many publishes, and what their answers come by.
    under_way: Vec<(usize, Result<Answer, PublishError>)>,
    answers: Vec<Result<Published, PublishError>>,
}

impl<'q> Together<'q> {
    pub(super) fn new(queue: &'q Queue) -> Self {
        let deadline = queue.deadline();
        let (part, under_way, answers) = Default::default();
        Self { queue, deadline, is_over: false, part, under_way, answers }
    }

    /// Adds one more.
    pub(crate) fn add(&mut self, outgoing: Outgoing) {
        self.part.push(outgoing);
    }

    /// Whether so many were added that they are to [go](Self::go).
    pub(crate) fn is_full(&self) -> bool {
        self.part.len() >= PART
    }

    /// Leaves what was added to be sent: in fewer at once where there is no room for all.
    pub(crate) async fn go(&mut self, hub: &Inner) {
        if self.part.is_empty() {
            return;
        }
        let mut parts = vec![mem::take(&mut self.part)];
        while let Some(mut part) = parts.pop() {
            match self.reserve(hub, &part).await {
                Err(PublishError::Overloaded) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                room => {
                    let count = part.len();
                    let sent = room.and_then(|room| self.queue.push(part, room));
                    self.under_way.push((count, sent));
                }
            }
        }
    }

    /// What became of all that went.
    pub(crate) async fn done(mut self, hub: &Inner) -> Vec<Result<Published, PublishError>> {
        self.settle(hub).await;
        self.answers
    }

    /// Takes room.
    async fn reserve(
        &mut self,
        hub: &Inner,
        part: &[Outgoing],
    ) -> Result<Reservation, PublishError> {
        if self.is_over {
            return Err(PublishError::Unavailable);
        }
        let room = self.queue.reserve_together(hub, part);
        if !matches!(room, Err(PublishError::Overloaded)) || self.under_way.is_empty() {
            return room;
        }
        // What holds the room may be those before it.
        self.settle(hub).await;
        self.is_over = Instant::now() >= self.deadline;
        self.queue.reserve_together(hub, part)
    }

    async fn settle(&mut self, hub: &Inner) {
        for (count, sent) in mem::take(&mut self.under_way) {
            let mut answers = match sent {
                Ok(answer) => answer.await.unwrap_or_default(),
                Err(error) => (0..count).map(|_| Err(hub.stats.refuse(error))).collect(),
            };
            // Each keeps its own, also if some have none.
            answers.resize(count, Err(PublishError::Uncertain));
            self.answers.extend(answers);
        }
    }
}

/// Publishes of one request: enough that what each request costs is little for each of them.
const PART: usize = 256;
