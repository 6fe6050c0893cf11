//! The way from publishers to shards: admission, then one broadcast ring that everything rides.
//!
//! A publish reserves its place, in entries and bytes, before anything else happens to it. The
//! reservation travels with the entry and is given back when the slowest shard has let go of it,
//! so the ring can never overwrite what a shard has not seen: it has more slots than can be
//! reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::sync::{Notify, futures::Notified};

use crate::channel::post::Post;
use crate::close::CloseReason;
use crate::hub::order::Order;
#[cfg(doc)]
use crate::message::Encoding;
use crate::message::Message;
use crate::registry::Targets;

/// One admitted publish, shared by every shard.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Position among admissions; only nearly the ring's order when publishers race.
    pub(crate) position: u64,
    pub(crate) admitted: Instant,
    pub(crate) load: Load,
    _reservation: Reservation,
}

/// What an entry brings, and to whom.
#[derive(Debug)]
pub(crate) enum Load {
    /// A message for all, and what the subscribers of the chat's channel get of it.
    Broadcast(Message, Audience, Option<Post>),
    /// A close for some connections.
    Close(Targets, CloseReason),
    /// Something for some connections to do, once what came before it is in their outboxes.
    Order(Targets, Arc<Order>),
    /// Nothing: shows that every shard's pump still turns.
    Probe(Arc<Probe>),
    /// Something for the subscribers of a channel.
    Post(Post),
    /// A message for some connections.
    Unicast(Targets, Message),
}

/// Who all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Those who chat: the connections of [`Encoding::Raw`].
    Chat,
    /// Every connection.
    Everyone,
}

/// The publishers' side.
#[derive(Debug)]
pub(crate) struct Ring {
    sender: broadcast::Sender<Arc<Entry>>,
    room: Arc<Room>,
    admitted: AtomicU64,
}

impl Ring {
    /// A ring that admits at most so many entries and bytes; both are checked configuration.
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let (sender, _) = broadcast::channel(max_entries + 1);
        Self { sender, room: Room::new(max_entries, max_bytes), admitted: AtomicU64::new(0) }
    }

    /// A shard's side; sees what is sent from now on.
    pub(crate) fn subscribe(&self) -> Receiver {
        Receiver { receiver: self.sender.subscribe() }
    }

    /// Takes room for one payload, or says that there is none. With a share, the room also counts
    /// against the quarter of the ring that one connection may hold;
    /// all connections together may hold three.
    pub(crate) fn reserve(
        &self,
        payload: usize,
        share: Option<&Arc<Share>>,
    ) -> Option<Reservation> {
        self.room.reserve(payload, share)
    }

    /// What may wait in the ring.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Sends what has been admitted to every shard; wakes the parked ones.
    pub(crate) fn send(&self, reservation: Reservation, load: Load) {
        let position = self.admitted.fetch_add(1, Ordering::SeqCst);
        let entry = Entry { position, admitted: Instant::now(), load, _reservation: reservation };
        // Without receivers the hub is shutting down and the entry has nowhere to go.
        let _ = self.sender.send(Arc::new(entry));
    }

    /// The position of the next admission: a connection that opens now sees from there on.
    pub(crate) fn position(&self) -> u64 {
        self.admitted.load(Ordering::SeqCst)
    }

    /// Entries and bytes that are reserved now.
    pub(crate) fn taken(&self) -> (u64, u64) {
        self.room.taken()
    }
}

impl Room {
    /// Room for so many entries and bytes.
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max: Cost { entries: max_entries as u64, bytes: max_bytes as u64 },
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    /// See [`Ring::reserve`].
    pub(crate) fn reserve(
        self: &Arc<Self>,
        payload: usize,
        share: Option<&Arc<Share>>,
    ) -> Option<Reservation> {
        self.take(Cost::of(payload), share)
    }

    /// The same for all of these, or for none.
    pub(crate) fn reserve_together(
        self: &Arc<Self>,
        payloads: impl Iterator<Item = usize>,
    ) -> Option<Reservation> {
        self.take(payloads.map(Cost::of).fold(Cost::NONE, Cost::and), None)
    }

    fn take(self: &Arc<Self>, cost: Cost, share: Option<&Arc<Share>>) -> Option<Reservation> {
        if let Some(share) = share
            && !cost.take(&share.0, self.max.quarter())
        {
            return None;
        }
        // However many connections flood, the API, presence and probes find a quarter.
        let max = if share.is_some() { self.max.without_quarter() } else { self.max };
        let share = share.cloned();
        if !cost.take(&self.taken, max) {
            if let Some(share) = share {
                cost.give_back(&share.0);
            }
            return None;
        }
        Some(Reservation { cost, room: self.clone(), share })
    }

    /// Resolves when room was given back since it was made; make it before trying to reserve.
    pub(crate) fn freed(&self) -> Freed<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Freed { room: self, notified: Box::pin(self.freed.notified()) }
    }

    /// Takes room for one payload, once there is some.
    pub(crate) async fn wait(self: &Arc<Self>, payload: usize) -> Reservation {
        self.wait_for(Cost::of(payload)).await
    }

    /// Takes room for payloads that go together: for the first of these that fill no more than a quarter, or
    /// for one, once there is some. Returns how many those are.
    pub(crate) async fn wait_together(
        self: &Arc<Self>,
        payloads: impl Iterator<Item = usize>,
    ) -> (usize, Reservation) {
        let (mut count, mut cost) = (0, Cost::NONE);
        for payload in payloads {
            let more = cost.and(Cost::of(payload));
            if count > 0 && !more.fits(self.max.quarter()) {
                break;
            }
            (count, cost) = (count + 1, more);
        }
        (count, self.wait_for(cost).await)
    }

    async fn wait_for(self: &Arc<Self>, cost: Cost) -> Reservation {
        if let Some(reservation) = self.take(cost, None) {
            return reservation;
        }
        let mut freed = self.freed();
        loop {
            match self.take(cost, None) {
                Some(reservation) => return reservation,
                None => freed.wait().await,
            }
        }
    }

    /// Resolves when nothing is reserved.
    pub(crate) async fn empty(&self) {
        let mut freed = self.freed();
        while self.taken().0 > 0 {
            freed.wait().await;
        }
    }

    /// Entries and bytes that are reserved now.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let taken = Cost::unpack(self.taken.load(Ordering::SeqCst));
        (taken.entries, taken.bytes)
    }
}

/// A shard's side of the ring.
#[derive(Debug)]
pub(crate) struct Receiver {
    receiver: broadcast::Receiver<Arc<Entry>>,
}

impl Receiver {
    /// The next entry; `None` once the ring is gone.
    pub(crate) async fn recv(&mut self) -> Option<Arc<Entry>> {
        match self.receiver.recv().await {
            Ok(entry) => Some(entry),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(lost)) => overrun(lost),
        }
    }

    /// The next entry if one is ready.
    pub(crate) fn try_recv(&mut self) -> Option<Arc<Entry>> {
        match self.receiver.try_recv() {
            Ok(entry) => Some(entry),
            Err(TryRecvError::Closed | TryRecvError::Empty) => None,
            Err(TryRecvError::Lagged(lost)) => overrun(lost),
        }
    }
}

/// Room in the ring, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    cost: Cost,
    room: Arc<Room>,
    share: Option<Arc<Share>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            self.cost.give_back(&share.0);
        }
        self.cost.give_back(&self.room.taken);
        if self.room.waiting.load(Ordering::SeqCst) > 0 {
            self.room.freed.notify_waiters();
        }
    }
}

/// What one publishing connection holds of the ring.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicU64);

/// See [`Ring::freed`].
pub(crate) struct Freed<'a> {
    room: &'a Room,
    notified: std::pin::Pin<Box<Notified<'a>>>,
}

impl Freed<'_> {
    pub(crate) async fn wait(&mut self) {
        self.notified.as_mut().await;
        self.notified.set(self.room.freed.notified());
    }
}

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts the shards that have yet to see it.
#[derive(Debug)]
pub(crate) struct Probe {
    missing: AtomicUsize,
    seen: Notify,
}

impl Probe {
    pub(crate) fn new(shards: usize) -> Self {
        Self { missing: AtomicUsize::new(shards), seen: Notify::new() }
    }

    /// One more shard has seen it; the last one completes the probe.
    pub(crate) fn arrive(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.seen.notify_one();
        }
    }

    /// Resolves when every shard has seen it. For one waiter.
    pub(crate) async fn complete(&self) {
        self.seen.notified().await;
    }
}

/// What may be reserved, and what is.
#[derive(Debug)]
pub(crate) struct Room {
    max: Cost,
    taken: AtomicU64,
    waiting: AtomicUsize,
    freed: Notify,
}

/// Entries and bytes, packed into one word so that both are reserved in one atomic step.
#[derive(Clone, Copy, Debug)]
struct Cost {
    entries: u64,
    bytes: u64,
}

impl Cost {
    const NONE: Self = Self { entries: 0, bytes: 0 };

    fn of(payload: usize) -> Self {
        Self { entries: 1, bytes: (payload + ENTRY_BYTES) as u64 }
    }

    fn and(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }

    fn fits(self, max: Self) -> bool {
        self.entries <= max.entries && self.bytes <= max.bytes
    }

    fn quarter(self) -> Self {
        Self { entries: self.entries / 4, bytes: self.bytes / 4 }
    }

    fn without_quarter(self) -> Self {
        let Self { entries, bytes } = self.quarter();
        Self { entries: self.entries - entries, bytes: self.bytes - bytes }
    }

    fn take(self, taken: &AtomicU64, max: Self) -> bool {
        let step = |packed| {
            let then = Self::unpack(packed).and(self);
            then.fits(max).then(|| then.pack())
        };
        taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).is_ok()
    }

    fn give_back(self, taken: &AtomicU64) {
        taken.fetch_sub(self.pack(), Ordering::SeqCst);
    }

    fn pack(self) -> u64 {
        self.entries << BYTES_BITS | self.bytes
    }

    fn unpack(packed: u64) -> Self {
        Self { entries: packed >> BYTES_BITS, bytes: packed & ((1 << BYTES_BITS) - 1) }
    }
}

/// The invariant of the module doc is broken: going on would lose admitted publishes silently.
fn overrun(lost: u64) -> ! {
    tracing::error!(lost, "the ring overwrote admitted publishes; aborting");
    std::process::abort()
}

/// What every queued entry counts besides its payload, for the bookkeeping around it.
pub(crate) const ENTRY_BYTES: usize = 64;

/// Bits of a packed [`Cost`] that hold bytes: 1 TiB, beside 16 million entries.
const BYTES_BITS: u32 = 40;

#[cfg(test)]
mod tests;
