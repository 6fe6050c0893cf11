//! Named streams of this node: who is on them is counted here, and what they remember.
//!
//! A channel comes to be with its first subscriber, or with its first publication if it has
//! history, and goes when it has neither. Whatever must be in one order (offset, history, ring)
//! happens under the channel's lock, which nobody holds for longer than that.

mod channels;
pub(crate) mod history;
pub(crate) mod mirror;
pub(crate) mod post;
mod presence;
pub(crate) mod publication;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub(crate) use channels::{Channels, TooManyChannels};
use history::{History, Window};
use mirror::Mirror;
use presence::Presence;

use crate::lock::lock;
use crate::protocol::centrifuge::ClientInfo;

/// One life of a channel on this node; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelId(u64);

/// One channel, shared by those who use it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    window: Window,
    state: Mutex<State>,
}

/// What changes of a channel; see [`Channel::lock`].
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) history: History,
    /// Entries that the ring was given for this channel.
    sequence: u64,
    subscribers: usize,
    /// Until when its position is worth keeping once nobody is subscribed.
    kept_until: Instant,
    /// How it stands to its stream at the broker, if there is one.
    pub(crate) mirror: Option<Box<Mirror>>,
    /// Who is subscribed; where the namespace says so.
    presence: Option<Box<Presence>>,
    /// Set once the map has let go of it: whoever still holds it must look the name up again.
    is_gone: bool,
}

impl Channel {
    /// A channel that is of use for at least so long.
    fn new(
        id: ChannelId,
        name: &str,
        window: Window,
        history: History,
        (mirror, linger): (Option<Box<Mirror>>, Duration),
    ) -> Self {
        let state = State {
            history,
            mirror,
            sequence: 0,
            subscribers: 0,
            kept_until: Instant::now() + linger,
            presence: None,
            is_gone: false,
        };
        Self { id, name: name.into(), window, state: Mutex::new(state) }
    }

    /// Entries that the ring was given for it.
    pub(crate) fn sequence(&self) -> u64 {
        self.lock().sequence
    }

    /// The state, for as long as an order must hold: no I/O and no await under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Connections that are subscribed.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Notes that a connection is there; true if it is its user's first.
    pub(crate) fn enter(&mut self, info: Arc<ClientInfo>) -> bool {
        self.presence.get_or_insert_default().enter(info)
    }

    /// Forgets a connection, if it was noted; says whether it was its user's last.
    pub(crate) fn leave(&mut self, client: &str) -> Option<(Arc<ClientInfo>, bool)> {
        self.presence.as_mut()?.leave(client)
    }

    /// A connection that is there.
    pub(crate) fn client(&self, client: &str) -> Option<Arc<ClientInfo>> {
        self.presence.as_ref()?.client(client).cloned()
    }

    /// Connections of a user that are there.
    pub(crate) fn connections_of(&self, user: &str) -> usize {
        self.presence.as_ref().map_or(0, |presence| presence.connections_of(user))
    }

    /// Who is there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<ClientInfo>> {
        self.presence.iter().flat_map(|presence| presence.clients())
    }

    /// How many connections and users are there, all anonymous users being one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let counts = |presence: &Presence| (presence.clients().len(), presence.users());
        self.presence.as_deref().map(counts).unwrap_or_default()
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
}
