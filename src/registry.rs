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
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn connection(generation: u32) -> ConnectionId {
        ConnectionId { shard: 0, slot: generation % 3, generation }
    }

    fn name() -> Arc<str> {
        "Ada".into()
    }

    #[test]
    fn a_user_is_announced_once_however_many_tabs() {
        let registry = Registry::new(Duration::ZERO);
        let user = UserId::from(42);
        assert_eq!(registry.connect(&user, &name(), connection(1)), Duty::Settle);
        assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
        assert_eq!(registry.connect(&user, &name(), connection(3)), Duty::None);
        assert_eq!(registry.targets(&user).unwrap().as_slice().len(), 3);
        assert_eq!((registry.active_users(), registry.present_users()), (1, 1));
    }

    #[test]
    fn a_return_within_the_linger_tells_nothing() {
        let registry = Registry::new(Duration::from_secs(2));
        let user = UserId::from(42);
        registry.connect(&user, &name(), connection(1));
        while registry.settle(&user, Instant::now()) != Presence::Settled {}
        assert_eq!(registry.disconnect(&user, connection(1)), Duty::Settle);
        assert_eq!((registry.active_users(), registry.present_users()), (0, 1));
        assert!(registry.targets(&user).is_none());
        assert!(matches!(registry.settle(&user, Instant::now()), Presence::Lingers(_)));
        assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
    }

    #[test]
    fn a_leave_is_told_after_the_linger_and_a_return_after_the_leave() {
        let registry = Registry::new(Duration::from_secs(2));
        let user = UserId::from(42);
        registry.connect(&user, &name(), connection(1));
        while registry.settle(&user, Instant::now()) != Presence::Settled {}
        registry.disconnect(&user, connection(1));
        let later = Instant::now() + Duration::from_secs(3);
        assert_eq!(registry.settle(&user, later), Presence::Left(name()));
        assert_eq!(registry.present_users(), 0);
        assert_eq!(registry.connect(&user, &name(), connection(2)), Duty::None);
        assert_eq!(registry.present_users(), 1);
        assert_eq!(registry.settle(&user, later), Presence::Joined(name()));
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let registry = Registry::new(Duration::ZERO);
        let user = UserId::from(42);
        registry.connect(&user, &name(), connection(1));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
        registry.retract(&user);
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Joined(name()));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
        registry.disconnect(&user, connection(1));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Left(name()));
        registry.retract(&user);
        assert_eq!(registry.present_users(), 1);
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Left(name()));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
        assert_eq!(registry.present_users(), 0);
    }

    #[test]
    fn a_user_never_announced_leaves_in_silence() {
        let registry = Registry::new(Duration::from_secs(2));
        let user = UserId::from(42);
        registry.connect(&user, &name(), connection(1));
        registry.disconnect(&user, connection(1));
        assert_eq!(registry.settle(&user, Instant::now()), Presence::Settled);
        assert_eq!(registry.present_users(), 0);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Connect(i32),
        Disconnect(usize),
        Settle(i32),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..4).prop_map(Operation::Connect),
            any::<usize>().prop_map(Operation::Disconnect),
            (0..4).prop_map(Operation::Settle),
        ]
    }

    proptest! {
        /// A bucket with many users, which a test of the whole map would hardly ever fill.
        #[test]
        fn a_bucket_agrees_with_a_map(changes in prop::collection::vec((0..9_usize, any::<bool>()), 0..60)) {
            let (mut users, mut model) = (Users::default(), HashMap::new());
            for (generation, (number, stays)) in (0..).zip(changes) {
                // Text and numbers, so that both orders are met.
                let user = UserId::parse(&format!("{}{number}", ["", "u"][number % 2])).unwrap();
                if stays {
                    users = users.with(&user, Record::new(name(), connection(generation)));
                    model.insert(user, connection(generation));
                } else {
                    users = users.without(&user);
                    model.remove(&user);
                }
                prop_assert_eq!(users.0.len(), model.len());
                for (user, connection) in &model {
                    let found = users.get(user).map(|record| record.connections.as_slice());
                    prop_assert_eq!(found, Some(&[*connection][..]));
                }
            }
        }

        /// Against a plain map: targets and counts agree after every step, slots are reused under
        /// new generations, and what is told alternates between joined and left.
        #[test]
        fn agrees_with_a_naive_model(operations in prop::collection::vec(operation(), 1..200)) {
            let registry = Registry::new(Duration::ZERO);
            let mut model: HashMap<i32, Vec<ConnectionId>> = HashMap::new();
            let mut told = HashSet::new();
            let mut generation = 0;
            for operation in operations {
                match operation {
                    Operation::Connect(user) => {
                        generation += 1;
                        registry.connect(&user.into(), &name(), connection(generation));
                        model.entry(user).or_default().push(connection(generation));
                    }
                    Operation::Disconnect(index) => {
                        let open = model.iter().flat_map(|(user, all)| all.iter().map(|c| (*user, *c)));
                        let open: Vec<_> = open.collect();
                        if open.is_empty() { continue }
                        let (user, connection) = open[index % open.len()];
                        registry.disconnect(&user.into(), connection);
                        model.entry(user).or_default().retain(|other| *other != connection);
                    }
                    Operation::Settle(user) => match registry.settle(&user.into(), Instant::now()) {
                        Presence::Joined(_) => prop_assert!(told.insert(user)),
                        Presence::Left(_) => prop_assert!(told.remove(&user)),
                        Presence::Lingers(_) => prop_assert!(false, "there is no linger"),
                        Presence::Settled => {}
                    },
                }
                for user in 0..4 {
                    let expected = model.get(&user).filter(|all| !all.is_empty());
                    let targets = registry.targets(&user.into());
                    prop_assert_eq!(targets.as_ref().map(Targets::as_slice), expected.map(|all| &all[..]));
                }
                let active = model.values().filter(|all| !all.is_empty()).count();
                prop_assert_eq!(registry.active_users(), active);
                prop_assert!(registry.present_users() >= active);
            }
        }
    }
}
