//! Notices on their way to the application: in order, numbered, and bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::{Change, Notice};
use crate::lock::lock;

/// What is still to be told.
#[derive(Debug)]
pub(crate) struct Notices {
    queue: Mutex<Queue>,
    max: usize,
    added: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// By number.
    waiting: VecDeque<Notice>,
    /// The number of the latest.
    last: u64,
    dropped: u64,
}

impl Notices {
    /// An empty queue of at most so many.
    pub(super) fn new(max: usize) -> Self {
        Self { queue: Mutex::default(), max, added: Notify::new(), emptied: Notify::new() }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// How many were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue().dropped
    }

    /// Adds one, and drops the oldest if there are too many.
    pub(super) fn push(&self, change: Change) {
        let mut queue = self.queue();
        queue.last += 1;
        if queue.waiting.len() == self.max {
            queue.waiting.pop_front();
            queue.dropped += 1;
        }
        let notice = Notice { number: queue.last, at: SystemTime::now(), change };
        queue.waiting.push_back(notice);
        drop(queue);
        self.added.notify_one();
    }

    /// The oldest, once there are any; they stay until forgotten.
    pub(super) async fn batch(&self) -> Vec<Notice> {
        loop {
            let batch: Vec<_> = self.queue().waiting.iter().take(BATCH_MAX).cloned().collect();
            if !batch.is_empty() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    /// Forgets those of a batch that are still there.
    pub(super) fn forget(&self, batch: &[Notice]) {
        let last = batch.last().map_or(0, |notice| notice.number);
        let mut queue = self.queue();
        while queue.waiting.pop_front_if(|notice| notice.number <= last).is_some() {}
        if queue.waiting.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves once none waits.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

/// Notices told at once: a body of at most about 100 KiB.
const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(notices: &Notices) -> Vec<u64> {
        notices.queue().waiting.iter().map(|notice| notice.number).collect()
    }

    fn filled(count: usize, max: usize) -> Notices {
        let notices = Notices::new(max);
        (0..count).for_each(|_| notices.push(Change::ChannelOccupied("news".into())));
        notices
    }

    #[test]
    fn over_the_bound_the_oldest_is_dropped_and_counted() {
        let notices = filled(5, 3);
        assert_eq!((numbers(&notices), notices.dropped()), (vec![3, 4, 5], 2));
    }

    #[tokio::test]
    async fn a_batch_stays_until_it_is_forgotten_and_takes_nothing_newer_with_it() {
        let notices = filled(BATCH_MAX + 1, 1000);
        let batch = notices.batch().await;
        assert_eq!((batch.len(), notices.waiting()), (BATCH_MAX, BATCH_MAX + 1));
        notices.forget(&batch);
        assert_eq!(numbers(&notices), [BATCH_MAX as u64 + 1]);
    }

    #[tokio::test]
    async fn what_was_dropped_meanwhile_is_not_forgotten_twice() {
        let notices = filled(3, 3);
        let batch = notices.batch().await;
        (0..2).for_each(|_| notices.push(Change::ChannelVacated("news".into())));
        notices.forget(&batch);
        assert_eq!(numbers(&notices), [4, 5]);
    }
}
