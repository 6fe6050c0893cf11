//! What was asked of other nodes, and who waits here for what they say.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::lock;

/// Who waits, by number.
#[derive(Debug)]
pub(super) struct Pending<T> {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, T>>,
}

/// The number of one that waits, for as long as it does.
pub(super) struct Ticket<'a, T> {
    pending: &'a Pending<T>,
    number: u64,
}

impl<T> Pending<T> {
    /// A number for what nobody waits for.
    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for what someone waits for, told by this.
    pub(super) fn wait(&self, told: T) -> Ticket<'_, T> {
        let number = self.next();
        lock(&self.waiting).insert(number, told);
        Ticket { pending: self, number }
    }

    /// Tells who waits under a number, if anyone still does.
    pub(super) fn tell(&self, number: u64, tell: impl FnOnce(&mut T)) {
        if let Some(told) = lock(&self.waiting).get_mut(&number) {
            tell(told);
        }
    }
}

impl<T> Ticket<'_, T> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl<T> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        lock(&self.pending.waiting).remove(&self.number);
    }
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { last: AtomicU64::new(0), waiting: Mutex::default() }
    }
}
