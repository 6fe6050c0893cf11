//! What is counted of the broker.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, from any thread.
#[derive(Debug, Default)]
pub(crate) struct BrokerStats {
    /// Publishes that the broker has.
    pub(crate) published: AtomicU64,
    /// What came from it.
    pub(crate) received: AtomicU64,
    /// Of that, what could not be read.
    pub(crate) malformed: AtomicU64,
    /// Connections to it that ended.
    pub(crate) lost: AtomicU64,
    /// Channels whose stream was read again, and that lack nothing.
    pub(crate) repaired: AtomicU64,
    /// Channels of which something cannot be had any more, so that their subscriptions ended.
    pub(crate) interrupted: AtomicU64,
    /// Topics without history of which something may lack.
    pub(crate) possible_gaps: AtomicU64,
    /// Topics that are subscribed.
    pub(crate) topics: AtomicU64,
}

impl BrokerStats {
    pub(super) fn count(counter: &AtomicU64) {
        Self::count_all(counter, 1);
    }

    pub(super) fn count_all(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
