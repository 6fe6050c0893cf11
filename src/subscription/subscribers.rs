//! A shard's side of channels: which of its connections get what is published.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::rc::Rc;

use slab::Slab;

use crate::channel::ChannelId;
use crate::connection::Connection;

/// A shard's subscriptions, by channel.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(RefCell<ByChannel>);

/// The subscribers of each channel that has any here.
pub(crate) type ByChannel = HashMap<ChannelId, OfChannel, BuildHasherDefault<IdHasher>>;

/// The subscribers of one channel.
#[derive(Debug)]
pub(crate) struct OfChannel {
    subscribers: Slab<Subscriber>,
    /// The number of the channel's latest entry that this shard has seen, or that its first
    /// subscriber began after.
    seen: Cell<u64>,
}

/// One subscription, as the pump sees it.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) connection: Rc<Connection>,
    /// Entries up to this number are not for it.
    pub(crate) since: u64,
    /// Whether it is told who joins and leaves.
    pub(crate) hears_join_leave: bool,
    /// Whether it counts on lacking nothing.
    pub(crate) is_positioned: bool,
}

impl Subscribers {
    /// Adds a subscription; returns its slot.
    pub(crate) fn insert(&self, channel: ChannelId, subscriber: Subscriber) -> usize {
        let mut channels = self.0.borrow_mut();
        let seen = Cell::new(subscriber.since);
        let new = || OfChannel { subscribers: Slab::new(), seen };
        channels.entry(channel).or_insert_with(new).subscribers.insert(subscriber)
    }

    /// Removes a subscription.
    pub(crate) fn remove(&self, channel: ChannelId, slot: usize) {
        let mut channels = self.0.borrow_mut();
        let Some(of_channel) = channels.get_mut(&channel) else { return };
        of_channel.subscribers.try_remove(slot);
        if of_channel.subscribers.is_empty() {
            channels.remove(&channel);
        }
    }

    /// Whether a subscriber that counts on lacking nothing has not seen an entry that was given.
    pub(crate) fn lacks(&self, channel: ChannelId, slot: usize, given: u64) -> bool {
        let channels = self.0.borrow();
        let Some(of_channel) = channels.get(&channel) else { return false };
        let subscriber = of_channel.subscribers.get(slot);
        of_channel.seen.get() < given && subscriber.is_some_and(|it| it.is_positioned)
    }

    /// The channels that have subscribers here.
    pub(crate) fn of_channels(&self) -> Ref<'_, ByChannel> {
        self.0.borrow()
    }
}

impl OfChannel {
    /// Has the memory that a push to the first of them touches fetched, without a wait for it here.
    pub(crate) fn fetch(&self) {
        let outbox = self.iter().next().map(|subscriber| subscriber.connection.outbox.borrow());
        black_box(outbox.is_some_and(|outbox| outbox.is_closing()));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.subscribers.iter().map(|(_, subscriber)| subscriber)
    }

    /// Takes note of the entries `first..=last`; false if some before them never came.
    pub(crate) fn see(&self, first: u64, last: u64) -> bool {
        let seen = self.seen.get();
        self.seen.set(seen.max(last));
        first <= seen + 1
    }
}

/// Hashes a [`ChannelId`]. Ids are counted up, so nobody chooses them to collide.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // The map takes the slot from the lower bits, and what tells neighbours apart from the upper.
        self.0 = (self.0 ^ id).wrapping_mul(GOLDEN).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// 2^64 over the golden ratio, which spreads consecutive numbers evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn of_channel(seen: u64) -> OfChannel {
        OfChannel { subscribers: Slab::new(), seen: Cell::new(seen) }
    }

    #[test]
    fn channels_in_a_row_hash_apart() {
        let slot = |id: u64| {
            let mut hasher = IdHasher::default();
            hasher.write_u64(id);
            hasher.finish() as usize % 1024
        };
        for stride in [1, 2, 3, 1024, 1 << 20] {
            let mut channels = [0; 1024];
            (1..=1024).for_each(|id| channels[slot(id * stride)] += 1);
            assert!(channels.iter().all(|channels| *channels <= 8), "{stride}");
        }
    }

    #[test]
    fn entries_from_before_the_first_subscriber_are_no_gap() {
        let of_channel = of_channel(5);
        assert!(of_channel.see(4, 4) && of_channel.see(5, 7) && of_channel.see(8, 8));
    }

    #[test]
    fn a_missing_entry_is_a_gap_once() {
        let of_channel = of_channel(5);
        assert!(!of_channel.see(7, 8));
        assert!(of_channel.see(9, 9));
    }
}
