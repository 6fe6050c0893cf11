//! Named streams of this node: who is on them is counted here, and what they remember.
//!
//! A channel comes to be with its first subscriber, or with its first publication if it has
//! history, and goes when it has neither. Whatever must be in one order (offset, history, ring)
//! happens under the channel's lock, which nobody holds for longer than that.

pub(crate) mod history;
pub(crate) mod publication;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use history::{History, Window};
use publication::Publication;

use crate::protocol::centrifuge::ClientInfo;

/// One life of a channel on this node; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelId(u64);

/// One channel, shared by those who use it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    pub(crate) window: Window,
    state: Mutex<State>,
}

/// What changes of a channel; see [`Channel::lock`].
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) history: History,
    /// Entries that the ring was given for this channel.
    sequence: u64,
    subscribers: usize,
    /// Who is subscribed, by the name of the connection; where the namespace says so.
    present: HashMap<Arc<str>, Arc<ClientInfo>>,
    /// Set once the map has let go of it: whoever still holds it must look the name up again.
    is_gone: bool,
}

impl State {
    /// Connections that are subscribed.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Notes that a connection is there.
    pub(crate) fn enter(&mut self, client: &Arc<str>, info: Arc<ClientInfo>) {
        self.present.insert(client.clone(), info);
    }

    /// Who is there.
    pub(crate) fn present(&self) -> impl ExactSizeIterator<Item = &Arc<ClientInfo>> {
        self.present.values()
    }

    /// Users that are there, all anonymous ones being one.
    pub(crate) fn users(&self) -> usize {
        self.present.values().map(|info| &info.user).collect::<HashSet<_>>().len()
    }

    /// Entries of the ring up to here are not for who subscribes now.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Counts an entry that the ring is given under this lock; returns its number, from 1.
    pub(crate) fn take_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Gives a publication its place, and remembers it.
    pub(crate) fn append(
        &mut self,
        publication: Publication,
        window: Window,
        max_bytes: usize,
        now: Instant,
    ) -> Arc<Publication> {
        if !window.is_open() {
            return Arc::new(publication);
        }
        let publication = Arc::new(publication.at(self.history.next_offset()));
        self.history.append(&publication, window, max_bytes, now);
        publication
    }
}

/// Every channel of this node, by name.
#[derive(Debug)]
pub(crate) struct Channels {
    buckets: Box<[Mutex<HashMap<Arc<str>, Arc<Channel>>>]>,
    hasher: RandomState,
    next_id: AtomicU64,
    count: AtomicUsize,
    max: usize,
}

/// `limits.channels` are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyChannels;

impl Channels {
    /// An empty map that takes at most so many.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            buckets: std::iter::repeat_with(Mutex::default).take(BUCKETS).collect(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            max,
        }
    }

    /// Channels that are there now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Runs `work` on a channel under its lock; `None` if it is not there.
    pub(crate) fn with<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Option<T> {
        let channel = lock(self.bucket(name)).get(name).cloned()?;
        let mut state = channel.lock();
        // What went between the two locks had no subscriber and no history, as if never there.
        (!state.is_gone).then(|| work(&channel, &mut state))
    }

    /// Runs `work` for a publish, on its channel under its lock if there is one: a channel that
    /// would remember the publish comes to be.
    pub(crate) fn with_if_of_use<T>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(Option<(&Arc<Channel>, &mut State)>) -> T,
    ) -> Result<T, TooManyChannels> {
        if window.is_open() {
            return self.with_new(name, window, |channel, state| work(Some((channel, state))));
        }
        let channel = lock(self.bucket(name)).get(name).cloned();
        let Some(channel) = channel else { return Ok(work(None)) };
        let mut state = channel.lock();
        let is_gone = state.is_gone;
        Ok(work((!is_gone).then_some((&channel, &mut *state))))
    }

    /// The same for a channel that comes to be if it is not there.
    pub(crate) fn with_new<T>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Result<T, TooManyChannels> {
        loop {
            let channel = self.get_or_insert(name, window)?;
            let mut state = channel.lock();
            if !state.is_gone {
                return Ok(work(&channel, &mut state));
            }
        }
    }

    /// Counts a subscriber, and runs `work` in the same step: what it sees is where it begins.
    pub(crate) fn subscribe_with<T>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Result<T, TooManyChannels> {
        self.with_new(name, window, |channel, state| {
            state.subscribers += 1;
            work(channel, state)
        })
    }

    /// Takes a subscriber back, and the channel with the last one unless it remembers anything.
    pub(crate) fn unsubscribe(&self, channel: &Channel, client: Option<&str>) {
        let mut bucket = lock(self.bucket(&channel.name));
        let mut state = channel.lock();
        client.map(|client| state.present.remove(client));
        state.subscribers -= 1;
        let is_of_use = state.subscribers > 0 || channel.window.is_open();
        if !is_of_use {
            state.is_gone = true;
            bucket.remove(&channel.name);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn get_or_insert(&self, name: &str, window: Window) -> Result<Arc<Channel>, TooManyChannels> {
        let mut bucket = lock(self.bucket(name));
        if let Some(channel) = bucket.get(name) {
            return Ok(channel.clone());
        }
        let takes_one_more = |count| (count < self.max).then_some(count + 1);
        let relaxed = Ordering::Relaxed;
        if self.count.fetch_update(relaxed, relaxed, takes_one_more).is_err() {
            return Err(TooManyChannels);
        }
        let id = ChannelId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let epoch = format!("{:08x}", self.hasher.hash_one((id, Instant::now())) as u32);
        let history = History::new(epoch.into());
        let state =
            State { history, sequence: 0, subscribers: 0, present: HashMap::new(), is_gone: false };
        let channel = Channel { id, name: name.into(), window, state: Mutex::new(state) };
        let channel = Arc::new(channel);
        bucket.insert(channel.name.clone(), channel.clone());
        Ok(channel)
    }

    fn bucket(&self, name: &str) -> &Mutex<HashMap<Arc<str>, Arc<Channel>>> {
        &self.buckets[self.hasher.hash_one(name) as usize % BUCKETS]
    }
}

impl Channel {
    /// The state, for as long as an order must hold: no I/O and no await under it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A panic under one of these locks leaves a step undone, but nothing half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enough that two threads seldom meet in one.
const BUCKETS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::history::Position;
    use super::*;

    const OPEN: Window = Window { size: 9, ttl: Duration::from_secs(60) };
    const SHUT: Window = Window { size: 0, ttl: Duration::ZERO };

    fn subscribe(
        channels: &Channels,
        name: &str,
        window: Window,
    ) -> Result<(Arc<Channel>, u64, Position), TooManyChannels> {
        channels.subscribe_with(name, window, |channel, state| {
            (channel.clone(), state.sequence(), state.history.position())
        })
    }

    #[test]
    fn a_channel_goes_with_its_last_subscriber() {
        let channels = Channels::new(10);
        let (first, ..) = subscribe(&channels, "a", SHUT).unwrap();
        let (second, ..) = subscribe(&channels, "a", SHUT).unwrap();
        assert_eq!((first.id, channels.count()), (second.id, 1));
        channels.unsubscribe(&first, None);
        assert_eq!(channels.with("a", |_, state| state.subscribers()), Some(1));
        channels.unsubscribe(&second, None);
        assert_eq!((channels.with("a", |_, _| ()), channels.count()), (None, 0));
        assert!(second.lock().is_gone);
        assert_ne!(subscribe(&channels, "a", SHUT).unwrap().0.id, first.id);
    }

    #[test]
    fn a_channel_that_remembers_stays() {
        let channels = Channels::new(10);
        let (channel, ..) = subscribe(&channels, "a", OPEN).unwrap();
        let publication = Publication::new("a".into(), "1".into());
        channel.lock().append(publication, OPEN, 100, Instant::now());
        channels.unsubscribe(&channel, None);
        let (again, _, position) = subscribe(&channels, "a", OPEN).unwrap();
        assert_eq!((again.id, position.offset), (channel.id, 1));
    }

    #[test]
    fn channels_are_bounded() {
        let channels = Channels::new(1);
        let (channel, ..) = subscribe(&channels, "a", SHUT).unwrap();
        assert!(subscribe(&channels, "b", SHUT).is_err());
        channels.unsubscribe(&channel, None);
        assert!(subscribe(&channels, "b", SHUT).is_ok());
    }

    #[test]
    fn without_history_a_publication_has_no_offset_but_a_sequence() {
        let channels = Channels::new(1);
        let (channel, start, _) = subscribe(&channels, "a", SHUT).unwrap();
        let mut state = channel.lock();
        let publication = Publication::new("a".into(), "1".into());
        assert_eq!(state.append(publication, SHUT, 100, Instant::now()).offset, 0);
        assert_eq!((start, state.take_sequence()), (0, 1));
    }
}
