//! What happened to all subscribers together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Set once nobody is to be cut any more.
    pub(crate) is_calm: Cell<bool>,
    pub(crate) cuts: Cell<u64>,
    pub(crate) stalls: Cell<u64>,
    /// Subscriptions that went on where they were, and the publications that they had missed.
    pub(crate) recovered: Cell<u64>,
    pub(crate) publications: Cell<u64>,
    pub(crate) unrecovered: Cell<u64>,
    /// Subscriptions that the server ended, by code.
    pub(crate) unsubscribed: Tallies<u32>,
    /// Connections that ended without having been cut, by how.
    pub(crate) ends: Tallies<String>,
    /// What the server should not have said.
    pub(crate) faults: Tallies<String>,
}

/// How often each of several things happened.
pub(crate) type Tallies<K> = RefCell<BTreeMap<K, u64>>;

pub(crate) fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

pub(crate) fn count<K: Ord>(tallies: &Tallies<K>, what: K) {
    *tallies.borrow_mut().entry(what).or_default() += 1;
}
