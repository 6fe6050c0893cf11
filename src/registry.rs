//! The user map: which connections belong to which user, and who is present.
//!
//! Many buckets, each an arc-swap snapshot: a look-up is one lock-free load, and a change copies
//! one small bucket under that bucket's lock. One map for all would copy every user at each
//! connect, O(n²) for a storm of n.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::lock::lock;
use crate::user::UserId;

/// One connection of this node, for as long as its generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) shard: u16,
    pub(crate) slot: u32,
    /// Tells a slot's tenants apart, so that nothing reaches a later one by mistake.
    pub(crate) generation: u32,
}

/// The connections that a unicast or a close goes to.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Several, or none.
    Many(Arc<[ConnectionId]>),
    /// One, the common case, without an allocation.
    One(ConnectionId),
}

impl Targets {
    /// The connections, oldest first.
    pub fn as_slice(&self) -> &[ConnectionId] {
        match self {
            Self::Many(connections) => connections,
            Self::One(connection) => std::slice::from_ref(connection),
        }
    }

    fn from_vec(connections: Vec<ConnectionId>) -> Self {
        match connections[..] {
            [connection] => Self::One(connection),
            _ => Self::Many(connections.into()),
        }
    }
}

/// The user map and the presence of each user.
#[derive(Debug)]
pub struct Registry {
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    linger: Duration,
    active: AtomicUsize,
    present: AtomicUsize,
}

/// What the caller of a change must still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing: presence is settled, or another caller has the duty.
    None,
    /// Call [`Registry::settle`] now, and again for as long as it says so.
    Settle,
}

/// What [`Registry::settle`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// The user is here and not yet announced; it counts as announced from now on.
    Joined(Arc<str>),
    /// The user is gone for longer than the linger; it counts as told from now on.
    Left(Arc<str>),
    /// The user is gone but may return until then; settle again at that time.
    Lingers(Instant),
    /// Nothing is left to do; the duty ends.
    Settled,
}

impl Registry {
    /// An empty map whose users stay present for `linger` after their last connection.
    pub fn new(linger: Duration) -> Self {
        let empty = Arc::new(Users::default());
        let bucket = || Bucket { users: ArcSwap::new(empty.clone()), changing: Mutex::default() };
        Self {
            buckets: std::iter::repeat_with(bucket).take(BUCKETS).collect(),
            hasher: RandomState::new(),
            linger,
            active: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
        }
    }

    /// The user's connections now: lock-free, one load and one look-up. `None`: it has none.
    pub fn targets(&self, user: &UserId) -> Option<Targets> {
        let users = self.bucket(user).users.load();
        let record = users.get(user).filter(|record| !record.is_gone())?;
        Some(record.connections.clone())
    }

    /// Users with at least one connection.
    pub fn active_users(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Users present: active, or gone for less than the linger.
    pub fn present_users(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// The name and the connections of a user that counts as present, and is not about to be told so.
    pub(crate) fn presence(&self, user: &UserId) -> Option<(Arc<str>, usize)> {
        let users = self.bucket(user).users.load();
        let record = users.get(user).filter(|record| record.announced)?;
        Some((record.name.clone(), record.connections.as_slice().len()))
    }

    /// Those users, a bucket's at a time.
    pub(crate) fn users(&self) -> impl Iterator<Item = Vec<UserId>> + '_ {
        self.buckets.iter().map(|bucket| {
            let users = bucket.users.load();
            let here = users.0.iter().filter(|(_, record)| !record.is_gone());
            here.map(|(user, _)| user.clone()).collect()
        })
    }

    /// Adds a connection to its user.
    pub fn connect(&self, user: &UserId, name: &Arc<str>, connection: ConnectionId) -> Duty {
        let mut bucket = self.bucket(user).change();
        let record = bucket.record(user);
        let record = match record {
            None => Record::new(name.clone(), connection),
            Some(record) => record.with(name.clone(), connection),
        };
        if record.connections.as_slice().len() == 1 {
            self.active.fetch_add(1, Ordering::Relaxed);
        }
        let record = self.count(Record { left: None, ..record });
        bucket.put_with_duty(user, record, |record| !record.announced)
    }

    /// Removes a connection from its user; one that is not there is left alone.
    pub fn disconnect(&self, user: &UserId, connection: ConnectionId) -> Duty {
        let mut bucket = self.bucket(user).change();
        let Some(record) = bucket.record(user) else { return Duty::None };
        let Some(mut record) = record.without(connection) else { return Duty::None };
        if record.is_gone() {
            self.active.fetch_sub(1, Ordering::Relaxed);
            record.left = Some(Instant::now());
        }
        bucket.put_with_duty(user, record, Record::is_gone)
    }

    /// Decides what is to be told of a user: by one caller at a time, the one with the duty.
    pub fn settle(&self, user: &UserId, now: Instant) -> Presence {
        let mut bucket = self.bucket(user).change();
        let Some(record) = bucket.record(user) else { return Presence::Settled };
        let Some(left) = record.left else {
            let (name, announced) = (record.name.clone(), record.announced);
            bucket.put(user, Record { announced: true, settling: !announced, ..record });
            return if announced { Presence::Settled } else { Presence::Joined(name) };
        };
        if !record.announced {
            bucket.remove(user);
            self.uncount(record);
            return Presence::Settled;
        }
        let until = left + self.linger;
        if now < until {
            return Presence::Lingers(until);
        }
        let name = record.name.clone();
        // The record stays until the caller has told it, so that a return is announced after it.
        bucket.put(user, Record { announced: false, ..self.uncount(record) });
        Presence::Left(name)
    }

    /// Takes back a [`Presence::Joined`] or [`Presence::Left`] that could not be told; the duty
    /// stays with the caller.
    pub fn retract(&self, user: &UserId) {
        let mut bucket = self.bucket(user).change();
        if let Some(record) = bucket.record(user) {
            let announced = !record.announced;
            bucket.put(user, Record { announced, ..self.count(record) });
        }
    }

    fn count(&self, record: Record) -> Record {
        if !record.counted {
            self.present.fetch_add(1, Ordering::Relaxed);
        }
        Record { counted: true, ..record }
    }

    fn uncount(&self, record: Record) -> Record {
        if record.counted {
            self.present.fetch_sub(1, Ordering::Relaxed);
        }
        Record { counted: false, ..record }
    }

    fn bucket(&self, user: &UserId) -> &Bucket {
        &self.buckets[self.hasher.hash_one(user) as usize % BUCKETS]
    }
}

/// A bucket's users, sorted: so few that looking through them costs less than another hash, and
/// in one piece of memory, as every change copies it.
#[derive(Debug, Default)]
struct Users(Box<[(UserId, Arc<Record>)]>);

impl Users {
    fn get(&self, user: &UserId) -> Option<&Arc<Record>> {
        self.find(user).ok().map(|index| &self.0[index].1)
    }

    /// A copy in which the user has this record.
    fn with(&self, user: &UserId, record: Record) -> Self {
        let entry = (user.clone(), Arc::new(record));
        let (before, after) = match self.find(user) {
            Ok(index) => (&self.0[..index], &self.0[index + 1..]),
            Err(index) => self.0.split_at(index),
        };
        Self([before, &[entry], after].concat().into())
    }

    fn without(&self, user: &UserId) -> Self {
        Self(self.0.iter().filter(|(other, _)| other != user).cloned().collect())
    }

    /// Where the user is, or would be.
    fn find(&self, user: &UserId) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(user))
    }
}

#[derive(Debug)]
struct Bucket {
    users: ArcSwap<Users>,
    changing: Mutex<()>,
}

impl Bucket {
    fn change(&self) -> Change<'_> {
        // The lock guards no data of its own, so a panic while it was held broke nothing.
        let _changing = lock(&self.changing);
        Change { bucket: self, users: self.users.load_full(), _changing }
    }
}

/// A bucket under its lock: what is put is visible to look-ups at once.
struct Change<'a> {
    bucket: &'a Bucket,
    users: Arc<Users>,
    _changing: MutexGuard<'a, ()>,
}

impl Change<'_> {
    fn record(&self, user: &UserId) -> Option<Record> {
        self.users.get(user).map(|record| Record::clone(record))
    }

    fn put_with_duty(
        &mut self,
        user: &UserId,
        record: Record,
        needs_settling: impl FnOnce(&Record) -> bool,
    ) -> Duty {
        let duty = !record.settling && needs_settling(&record);
        self.put(user, Record { settling: record.settling || duty, ..record });
        if duty { Duty::Settle } else { Duty::None }
    }

    fn put(&mut self, user: &UserId, record: Record) {
        self.store(self.users.with(user, record));
    }

    fn remove(&mut self, user: &UserId) {
        self.store(self.users.without(user));
    }

    fn store(&mut self, users: Users) {
        self.users = Arc::new(users);
        self.bucket.users.store(self.users.clone());
    }
}

/// What is known of one user.
#[derive(Clone, Debug)]
struct Record {
    connections: Targets,
    name: Arc<str>,
    /// Whether others were told that the user is here.
    announced: bool,
    /// Whether it counts among the present.
    counted: bool,
    /// Whether some caller has the duty to settle.
    settling: bool,
    /// When the last connection went; `None` while there is one.
    left: Option<Instant>,
}

impl Record {
    fn new(name: Arc<str>, connection: ConnectionId) -> Self {
        let connections = Targets::One(connection);
        Self { connections, name, announced: false, counted: false, settling: false, left: None }
    }

    fn is_gone(&self) -> bool {
        self.connections.as_slice().is_empty()
    }

    fn with(self, name: Arc<str>, connection: ConnectionId) -> Self {
        let mut connections = self.connections.as_slice().to_vec();
        connections.push(connection);
        Self { connections: Targets::from_vec(connections), name, ..self }
    }

    fn without(self, connection: ConnectionId) -> Option<Self> {
        let mut connections = self.connections.as_slice().to_vec();
        let index = connections.iter().position(|other| *other == connection)?;
        connections.remove(index);
        Some(Self { connections: Targets::from_vec(connections), ..self })
    }
}

/// Enough that a bucket of a million users holds some 250 records, which a change copies in
/// microseconds; few enough that an empty node pays under 200 KiB for them.
const BUCKETS: usize = 4096;

#[cfg(test)]
mod tests;
