//! How long a peer of HTTP may take.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::config::Limits;

/// How long a peer may take, from a request's first byte to its last and between requests.
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Cell<Option<Instant>>,
    /// The end of all requests.
    end: Cell<Option<Instant>>,
    is_resting: Cell<bool>,
    handshake_timeout: Duration,
    keepalive_timeout: Duration,
}

impl Pace {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            deadline: Cell::new(Some(Instant::now() + limits.handshake_timeout)),
            end: Cell::new(None),
            is_resting: Cell::new(false),
            handshake_timeout: limits.handshake_timeout,
            keepalive_timeout: limits.keepalive_timeout,
        }
    }

    /// The request has come in whole; what takes time now is ours.
    pub(super) fn received(&self) {
        self.deadline.set(None);
    }

    /// Some of a request has come in.
    pub(super) fn read(&self) {
        if self.is_resting.replace(false) {
            self.deadline.set(Some(Instant::now() + self.handshake_timeout));
        }
    }

    /// The answer is made; the next request may take its time.
    pub(super) fn rest(&self) {
        self.is_resting.set(true);
        self.deadline.set(Some(Instant::now() + self.keepalive_timeout));
    }

    /// Leaves so much time for all that is under way.
    pub(super) fn hurry(&self, patience: Duration) {
        self.end.set(Some(Instant::now() + patience));
    }

    pub(super) fn is_mid_request(&self) -> bool {
        !self.is_resting.get()
    }

    /// Resolves when the peer has taken too long. The deadline is looked at anew at every poll,
    /// as what moves it nearer is polled by the same task.
    pub(super) async fn overdue(&self) {
        let mut timer = pin!(tokio::time::sleep(self.keepalive_timeout));
        poll_fn(|context| {
            let deadlines = [self.deadline.get(), self.end.get()];
            let Some(deadline) = deadlines.into_iter().flatten().min() else {
                return Poll::Pending;
            };
            if deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
            while timer.as_mut().poll(context).is_ready() {
                if deadline <= Instant::now() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_begins_late_is_not_given_the_time_between_requests() {
        let handshake_timeout = Duration::from_millis(20);
        let pace = Pace::new(&Limits { handshake_timeout, ..Limits::default() });
        pace.received();
        pace.rest();
        let mut overdue = pin!(pace.overdue());
        assert!(poll_fn(|context| Poll::Ready(overdue.as_mut().poll(context).is_pending())).await);
        pace.read();
        tokio::time::timeout(handshake_timeout * 100, overdue).await.unwrap();
        assert!(pace.is_mid_request());
    }
}
