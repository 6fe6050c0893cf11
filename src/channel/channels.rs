//! The map of all channels.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::history::{History, Position, Window};
use super::mirror::Mirror;
use super::publication::Publication;
use super::{Channel, ChannelId, State, lock};
use crate::agenda::Agenda;

/// Every channel of this node, by name.
#[derive(Debug)]
pub(crate) struct Channels {
    buckets: Box<[Mutex<Bucket>]>,
    hasher: RandomState,
    next_id: AtomicU64,
    count: AtomicUsize,
    subscriptions: AtomicUsize,
    /// Bytes of all histories.
    remembered: AtomicUsize,
    max: usize,
    max_remembered: usize,
    next_swept: AtomicUsize,
    /// Where it is noted which channels come and go, if they follow streams at a broker.
    followed: Option<Arc<Agenda<Arc<str>>>>,
}

/// Channels whose names hash alike.
#[derive(Debug, Default)]
struct Bucket {
    channels: HashMap<Arc<str>, Arc<Channel>>,
    /// Streams that were let go of after something was published there. A channel that comes to be
    /// again has its epoch from before only if this is the same, so that who is cut off while
    /// nothing was published yet can still recover, and nobody does who lacks something.
    forgotten: u64,
}

/// `limits.channels` are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyChannels;

impl Channels {
    /// An empty map that takes at most so many channels, and so many bytes of history.
    pub(crate) fn new(max: usize, max_remembered: usize) -> Self {
        Self {
            buckets: std::iter::repeat_with(Mutex::default).take(BUCKETS).collect(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            remembered: AtomicUsize::new(0),
            max,
            max_remembered,
            next_swept: AtomicUsize::new(0),
            followed: None,
        }
    }

    /// The same, of channels that follow streams at a broker: each that comes or goes is noted.
    pub(crate) fn following(self, followed: Arc<Agenda<Arc<str>>>) -> Self {
        Self { followed: Some(followed), ..self }
    }

    /// Channels that are there now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Subscriptions to all of them.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Bytes of all histories.
    pub(crate) fn remembered(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Every channel with subscribers, and how many it has; a part at a time, so that whoever asks
    /// can let others have their turn in between.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = Vec<(Arc<str>, usize)>> + '_ {
        self.buckets.iter().map(|bucket| {
            let bucket = lock(bucket);
            let channels =
                bucket.channels.iter().map(|(name, it)| (name.clone(), it.lock().subscribers));
            channels.filter(|(_, subscribers)| *subscribers > 0).collect()
        })
    }

    /// Runs `work` on a channel under its lock; `None` if it is not there.
    pub(crate) fn with<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Option<T> {
        let channel = lock(self.bucket(name)).channels.get(name).cloned()?;
        let mut state = channel.lock();
        self.expire(&mut state, Instant::now());
        // What went between the two locks had no subscriber and no history, as if never there.
        (!state.is_gone).then(|| work(&channel, &mut state))
    }

    /// Publishes: `work` runs under the channel's lock if there is one. A channel that would remember
    /// the publication comes to be.
    pub(crate) fn publish_with<T>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(Option<(&Arc<Channel>, &mut State)>) -> T,
    ) -> Result<T, TooManyChannels> {
        if window.is_open() {
            return self.with_new(name, window, |channel, state| work(Some((channel, state))));
        }
        let channel = lock(self.bucket(name)).channels.get(name).cloned();
        let Some(channel) = channel else { return Ok(work(None)) };
        let mut state = channel.lock();
        let is_gone = state.is_gone;
        Ok(work((!is_gone).then_some((&channel, &mut *state))))
    }

    /// Subscribes: `work` says yes or no, and what it sees under the lock is where a subscription
    /// begins.
    pub(crate) fn subscribe_with<T, E: From<TooManyChannels>>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> Result<T, E>,
    ) -> Result<T, E> {
        let (channel, subscribed) = self.with_new(name, window, |channel, state| {
            let subscribed = work(channel, state);
            state.subscribers += usize::from(subscribed.is_ok());
            (channel.clone(), subscribed)
        })?;
        match &subscribed {
            Ok(_) => drop(self.subscriptions.fetch_add(1, Ordering::Relaxed)),
            Err(_) => self.tidy(&mut lock(self.bucket(name)), &channel, Instant::now()),
        }
        subscribed
    }

    /// Ends a subscription, and the channel with the last one unless it remembers anything; its
    /// position is kept for as long as a publication would be. `work` runs under its lock.
    pub(crate) fn unsubscribe_with(&self, channel: &Channel, work: impl FnOnce(&mut State)) {
        let mut bucket = lock(self.bucket(&channel.name));
        let now = Instant::now();
        let mut state = channel.lock();
        work(&mut state);
        state.subscribers -= 1;
        state.kept_until = now + if state.mirror.is_some() { LINGER } else { channel.window.ttl };
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        drop(state);
        self.tidy(&mut bucket, channel, now);
    }

    /// Gives a publication its place in its channel's stream, and remembers it. Over
    /// `limits.history_bytes` the channel that is published to forgets its oldest.
    pub(crate) fn append(
        &self,
        channel: &Channel,
        state: &mut State,
        publication: Publication,
        window: Window,
        now: Instant,
    ) -> Arc<Publication> {
        if !window.is_open() {
            return Arc::new(publication.at(&channel.name, Position::default()));
        }
        let publication = Arc::new(publication.at(&channel.name, state.history.next()));
        let before = state.history.bytes();
        let elsewhere = self.remembered().saturating_sub(before);
        let max_bytes = self.max_remembered.saturating_sub(elsewhere);
        state.history.append(&publication, window, max_bytes, now);
        self.note_remembered(before, state.history.bytes());
        publication
    }

    /// Gives a publication its place that has one already: the next of the stream that the channel
    /// follows, or none.
    pub(crate) fn take(
        &self,
        channel: &Channel,
        state: &mut State,
        publication: Publication,
        age: Duration,
    ) -> Arc<Publication> {
        let publication = Arc::new(publication.on(&channel.name));
        if publication.offset > 0 {
            let before = state.history.bytes();
            let elsewhere = self.remembered().saturating_sub(before);
            let max_bytes = self.max_remembered.saturating_sub(elsewhere);
            let Window { size, ttl } = channel.window;
            let window = Window { size, ttl: ttl.saturating_sub(age) };
            state.history.append(&publication, window, max_bytes, Instant::now());
            self.note_remembered(before, state.history.bytes());
        }
        publication
    }

    /// Has a channel that follows a stream go on from a place in it.
    pub(crate) fn begin(&self, state: &mut State, position: Position) {
        self.note_remembered(state.history.bytes(), 0);
        state.history = History::at(position);
    }

    /// Has a channel follow its stream, for a while also without subscribers; what is returned resolves
    /// once it has caught up, unless what it has is enough.
    pub(crate) fn follow(
        &self,
        name: &str,
        window: Window,
        is_enough: impl FnOnce(&Arc<Channel>, &mut State) -> bool,
    ) -> Result<Option<oneshot::Receiver<()>>, TooManyChannels> {
        self.with_new(name, window, |channel, state| {
            state.kept_until = Instant::now() + LINGER;
            let is_enough = is_enough(channel, state);
            let mirror = state.mirror.as_mut().filter(|_| !is_enough);
            mirror.map(|mirror| mirror.caught_up())
        })
    }

    /// Every channel that is there.
    pub(crate) fn names(&self) -> impl Iterator<Item = Vec<Arc<str>>> + '_ {
        self.buckets.iter().map(|bucket| lock(bucket).channels.keys().cloned().collect())
    }

    /// Has a channel forget its publications; its position stays. False if it is not there.
    pub(crate) fn clear(&self, name: &str) -> bool {
        let cleared = self.with(name, |_, state| {
            self.note_remembered(state.history.bytes(), 0);
            state.history.clear();
        });
        cleared.is_some()
    }

    /// Lets go of what is too old in the next few buckets, and of channels that are of no use any
    /// more; to be called again and again.
    pub(crate) fn sweep(&self, now: Instant) {
        for _ in 0..SWEPT_BUCKETS {
            let next = self.next_swept.fetch_add(1, Ordering::Relaxed);
            let mut bucket = lock(&self.buckets[next % BUCKETS]);
            let channels: Vec<_> = bucket.channels.values().cloned().collect();
            let may_linger = |it: &&Arc<Channel>| self.followed.is_some() || it.window.is_open();
            for channel in channels.iter().filter(may_linger) {
                self.tidy(&mut bucket, channel, now);
            }
        }
    }

    /// Lets go of what a channel need not remember, and of the channel if that was all.
    fn tidy(&self, bucket: &mut Bucket, channel: &Channel, now: Instant) {
        let mut state = channel.lock();
        self.expire(&mut state, now);
        let is_published_to = state.history.next_offset() > 1;
        let is_of_use = match state.mirror {
            // What it remembers the broker has too.
            Some(_) => state.subscribers > 0 || now < state.kept_until,
            None => {
                let keeps_position = is_published_to && now < state.kept_until;
                state.subscribers > 0 || state.history.bytes() > 0 || keeps_position
            }
        };
        if !is_of_use && !state.is_gone {
            state.is_gone = true;
            if let Some(mirror) = &mut state.mirror {
                // Whoever waits for it must look the name up again.
                **mirror = Mirror::default();
            }
            self.note_remembered(state.history.bytes(), 0);
            bucket.channels.remove(&channel.name);
            bucket.forgotten += u64::from(is_published_to);
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.note_followed(&channel.name);
        }
    }

    fn note_followed(&self, name: &Arc<str>) {
        if let Some(followed) = &self.followed {
            followed.add(name.clone());
        }
    }

    /// Has a channel forget what is too old: whoever looks at it next must not find that.
    fn expire(&self, state: &mut State, now: Instant) {
        let before = state.history.bytes();
        state.history.expire(now);
        self.note_remembered(before, state.history.bytes());
    }

    fn note_remembered(&self, before: usize, after: usize) {
        self.remembered.fetch_add(after, Ordering::Relaxed);
        self.remembered.fetch_sub(before, Ordering::Relaxed);
    }

    fn with_new<T>(
        &self,
        name: &str,
        window: Window,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Result<T, TooManyChannels> {
        loop {
            let channel = self.get_or_insert(name, window)?;
            let mut state = channel.lock();
            self.expire(&mut state, Instant::now());
            if !state.is_gone {
                return Ok(work(&channel, &mut state));
            }
        }
    }

    fn get_or_insert(&self, name: &str, window: Window) -> Result<Arc<Channel>, TooManyChannels> {
        let mut bucket = lock(self.bucket(name));
        if let Some(channel) = bucket.channels.get(name) {
            return Ok(channel.clone());
        }
        let takes_one_more = |count| (count < self.max).then_some(count + 1);
        let relaxed = Ordering::Relaxed;
        if self.count.fetch_update(relaxed, relaxed, takes_one_more).is_err() {
            return Err(TooManyChannels);
        }
        let id = ChannelId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let epoch = format!("{:08x}", self.hasher.hash_one((name, bucket.forgotten)) as u32);
        let mirror = self.followed.is_some().then(Box::<Mirror>::default);
        let linger = if mirror.is_some() { LINGER } else { Duration::ZERO };
        let history = History::new(epoch.into());
        let channel = Arc::new(Channel::new(id, name, window, history, (mirror, linger)));
        bucket.channels.insert(channel.name.clone(), channel.clone());
        self.note_followed(&channel.name);
        Ok(channel)
    }

    fn bucket(&self, name: &str) -> &Mutex<Bucket> {
        &self.buckets[self.hasher.hash_one(name) as usize % BUCKETS]
    }
}

/// How long a channel that follows its stream goes on without subscribers: for who subscribes once it
/// has caught up, and for who comes back.
const LINGER: Duration = Duration::from_secs(10);

/// Enough that two threads seldom meet in one.
const BUCKETS: usize = 1024;

/// Buckets of one call of [`Channels::sweep`].
const SWEPT_BUCKETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::ENTRY_BYTES;

    const OPEN: Window = Window { size: 9, ttl: Duration::from_secs(60) };
    const SHUT: Window = Window { size: 0, ttl: Duration::ZERO };

    fn subscribe(
        channels: &Channels,
        name: &str,
        window: Window,
    ) -> Result<(Arc<Channel>, u64, Position), TooManyChannels> {
        channels.subscribe_with(name, window, |channel, state| {
            Ok((channel.clone(), state.sequence(), state.history.position()))
        })
    }

    fn unsubscribe(channels: &Channels, channel: &Channel) {
        channels.unsubscribe_with(channel, |_| {});
    }

    fn publish(channels: &Channels, name: &str, window: Window, now: Instant) -> u64 {
        let publication = Publication::new("1".into());
        let appended = channels.publish_with(name, window, |place| {
            let append = |(channel, state): (&Arc<Channel>, &mut _)| {
                channels.append(channel, state, publication, window, now).offset
            };
            place.map(append)
        });
        appended.unwrap().unwrap_or(0)
    }

    #[test]
    fn a_channel_goes_with_its_last_subscriber() {
        let channels = Channels::new(10, 0);
        let (first, ..) = subscribe(&channels, "a", SHUT).unwrap();
        let (second, ..) = subscribe(&channels, "a", SHUT).unwrap();
        assert_eq!((first.id, channels.count()), (second.id, 1));
        unsubscribe(&channels, &first);
        assert_eq!(channels.with("a", |_, state| state.subscribers()), Some(1));
        unsubscribe(&channels, &second);
        assert_eq!((channels.with("a", |_, _| ()), channels.count()), (None, 0));
        assert!(second.lock().is_gone);
        assert_ne!(subscribe(&channels, "a", SHUT).unwrap().0.id, first.id);
        assert_eq!(channels.subscriptions(), 1);
    }

    #[test]
    fn a_channel_that_remembers_stays_until_it_need_not() {
        let channels = Channels::new(10, 1000);
        let (channel, ..) = subscribe(&channels, "a", OPEN).unwrap();
        let now = Instant::now();
        assert_eq!(publish(&channels, "a", OPEN, now), 1);
        unsubscribe(&channels, &channel);
        let (again, _, position) = subscribe(&channels, "a", OPEN).unwrap();
        assert_eq!((again.id, position.offset), (channel.id, 1));
        unsubscribe(&channels, &again);
        let sweep = |now| (0..BUCKETS / SWEPT_BUCKETS).for_each(|_| channels.sweep(now));
        sweep(now + OPEN.ttl / 2);
        assert_eq!((channels.count(), channels.remembered()), (1, 1 + ENTRY_BYTES));
        sweep(now + OPEN.ttl);
        assert_eq!((channels.count(), channels.remembered()), (1, 0));
        sweep(now + OPEN.ttl * 2);
        assert_eq!(channels.count(), 0);
    }

    #[test]
    fn a_position_before_the_first_publication_is_kept_too() {
        let channels = Channels::new(10, 1000);
        let (channel, _, position) = subscribe(&channels, "a", OPEN).unwrap();
        unsubscribe(&channels, &channel);
        publish(&channels, "a", OPEN, Instant::now());
        let missed =
            channels.with("a", |_, state| state.history.recover(&position, 9).unwrap().len());
        assert_eq!(missed, Some(1));
    }

    #[test]
    fn a_stream_is_another_only_once_something_of_it_is_lost() {
        let channels = Channels::new(10, 1000);
        let enter = || subscribe(&channels, "a", OPEN).unwrap();
        let (channel, _, first) = enter();
        unsubscribe(&channels, &channel);
        assert_eq!(channels.count(), 0);
        let (channel, _, again) = enter();
        assert_eq!(again, first);
        let now = Instant::now();
        publish(&channels, "a", OPEN, now);
        unsubscribe(&channels, &channel);
        (0..BUCKETS / SWEPT_BUCKETS).for_each(|_| channels.sweep(now + OPEN.ttl * 2));
        let (_, _, last) = enter();
        assert_eq!(last.offset, 0);
        assert_ne!(last.epoch, first.epoch);
    }

    #[test]
    fn what_is_too_old_is_not_there_for_who_looks_before_the_sweep() {
        let channels = Channels::new(10, 1000);
        let window = Window { ttl: Duration::from_nanos(1), ..OPEN };
        publish(&channels, "a", window, Instant::now());
        assert_eq!(channels.with("a", |_, state| state.history.bytes()), Some(0));
        assert_eq!(channels.remembered(), 0);
    }

    #[test]
    fn channels_are_bounded() {
        let channels = Channels::new(1, 0);
        let (channel, ..) = subscribe(&channels, "a", SHUT).unwrap();
        assert!(subscribe(&channels, "b", SHUT).is_err());
        unsubscribe(&channels, &channel);
        assert!(subscribe(&channels, "b", SHUT).is_ok());
    }

    #[test]
    fn who_is_refused_leaves_no_channel() {
        let channels = Channels::new(1, 0);
        let refused = channels.subscribe_with("a", SHUT, |_, _| Err::<(), _>(TooManyChannels));
        assert_eq!((refused, channels.count()), (Err(TooManyChannels), 0));
    }

    #[test]
    fn all_histories_together_are_bounded_at_the_cost_of_who_publishes() {
        let channels = Channels::new(10, 3 * (1 + ENTRY_BYTES));
        let now = Instant::now();
        for _ in 0..2 {
            publish(&channels, "a", OPEN, now);
        }
        for _ in 0..4 {
            publish(&channels, "b", OPEN, now);
        }
        let kept = |name| channels.with(name, |_, state| state.history.bytes());
        assert_eq!(kept("a"), Some(2 * (1 + ENTRY_BYTES)));
        assert_eq!(kept("b"), Some(1 + ENTRY_BYTES));
        assert!(channels.clear("a"));
        assert_eq!(channels.remembered(), 1 + ENTRY_BYTES);
        assert_eq!(publish(&channels, "a", OPEN, now), 3);
    }

    #[test]
    fn without_history_a_publication_has_no_offset_but_a_sequence() {
        let channels = Channels::new(1, 0);
        let (channel, start, _) = subscribe(&channels, "a", SHUT).unwrap();
        assert_eq!(publish(&channels, "a", SHUT, Instant::now()), 0);
        assert_eq!((start, channel.lock().take_sequence()), (0, 1));
    }
}
