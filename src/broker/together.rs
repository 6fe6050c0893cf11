//! Publishes of one call: under way beside each other, so that the broker is waited for once.

use std::mem;
use std::time::Instant;

use super::queue::{Admitted, Answer, Outgoing, Queue};
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
    part: Vec<Admitted>,
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

    /// Takes room for one more.
    pub(crate) async fn reserve(
        &mut self,
        hub: &Inner,
        outgoing: &Outgoing,
    ) -> Result<Reservation, PublishError> {
        if self.is_over {
            return Err(PublishError::Unavailable);
        }
        match self.queue.reserve(hub, outgoing, None) {
            Err(PublishError::Overloaded) => {
                // What holds the room may be those before it.
                self.settle().await;
                self.is_over = Instant::now() >= self.deadline;
                self.queue.reserve(hub, outgoing, None)
            }
            reserved => reserved,
        }
    }

    /// Leaves it to be sent.
    pub(crate) fn add(&mut self, outgoing: Outgoing, _reservation: Reservation) {
        self.part.push(Admitted { outgoing, _reservation });
        if self.part.len() == PART {
            self.go();
        }
    }

    /// What became of all that were added.
    pub(crate) async fn done(mut self) -> Vec<Result<Published, PublishError>> {
        self.settle().await;
        self.answers
    }

    async fn settle(&mut self) {
        self.go();
        for (count, answer) in mem::take(&mut self.under_way) {
            let mut answers = match answer {
                Ok(answer) => answer.await.unwrap_or_default(),
                Err(error) => vec![Err(error); count],
            };
            // Each keeps its own, also if some have none.
            answers.resize(count, Err(PublishError::Uncertain));
            self.answers.extend(answers);
        }
    }

    fn go(&mut self) {
        if !self.part.is_empty() {
            let part = mem::take(&mut self.part);
            self.under_way.push((part.len(), self.queue.push(part)));
        }
    }
}

/// Publishes of one request: enough that what each request costs is little for each of them.
const PART: usize = 256;
