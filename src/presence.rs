//! Who is told of whom: users joining and leaving, or only their count in a crowd.
//!
//! Telling everyone of everyone costs n² deliveries in a storm of n, so above a bound the single
//! announcements give way to a count, at most once a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::broker::UserChange;
use crate::config::{Announce, Chat, Namespace};
use crate::error::PublishError;
use crate::hook::Change;
use crate::hub::Inner;
use crate::hub::order::{Act, Whom};
use crate::message::Message;
use crate::protocol::chat;
use crate::registry::Presence;
use crate::ring::Audience;
use crate::user::UserId;

/// Whether so many users are present that they are counted rather than announced.
#[derive(Debug)]
pub(crate) struct Crowd {
    announce: Announce,
    max_announced: usize,
    is_crowded: AtomicBool,
    is_count_due: AtomicBool,
    /// When the last count went out, in milliseconds of the hub's life.
    counted: AtomicU64,
}

impl Crowd {
    pub(crate) fn new(config: &Chat) -> Self {
        Self {
            announce: config.announce,
            max_announced: config.announce_users,
            is_crowded: AtomicBool::new(false),
            is_count_due: AtomicBool::new(false),
            counted: AtomicU64::new(0),
        }
    }

    /// Whether announcing is on at all.
    pub(crate) fn announces(&self) -> bool {
        self.announce == Announce::User
    }

    /// Judges a new number of users present: crowded above the bound, no more below 90 % of it.
    fn is_crowded(&self, present: usize) -> bool {
        let was_crowded = self.is_crowded.load(Ordering::Relaxed);
        let bound = if was_crowded { self.max_announced * 9 / 10 } else { self.max_announced + 1 };
        let is_crowded = present >= bound;
        self.is_crowded.store(is_crowded, Ordering::Relaxed);
        is_crowded
    }
}

/// One shard's users whose presence is not settled.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// Users who may return, in the order in which their time ends.
    lingering: VecDeque<(Instant, UserId)>,
    /// Users whose announcement found no room.
    refused: VecDeque<UserId>,
}

impl Unsettled {
    /// Settles a user as far as can be; true if it was announced to all just now.
    pub(crate) fn settle(&mut self, hub: &Inner, user: &UserId) -> bool {
        let mut announced = false;
        loop {
            let (told, change) = match hub.registry.settle(user, Instant::now()) {
                Presence::Settled => return announced,
                Presence::Lingers(until) => {
                    self.lingering.push_back((until, user.clone()));
                    return announced;
                }
                Presence::Joined(name) => {
                    let told = hub.announce(|count| chat::joined(user, &name, count));
                    (told, Change::UserJoined(user.clone()))
                }
                Presence::Left(name) => {
                    let told = hub.announce(|count| chat::left(user, &name, count));
                    (told, Change::UserLeft(user.clone()))
                }
            };
            match told {
                Told::Announced => announced = true,
                Told::Counted => {}
                Told::Refused => {
                    hub.registry.retract(user);
                    self.refused.push_back(user.clone());
                    return announced;
                }
            }
            if let Some(broker) = &hub.broker {
                broker.presence.note_user(user);
            }
            hub.notice_here(change);
        }
    }

    /// Settles some of those whose time has come; true if more are left.
    pub(crate) fn settle_due(&mut self, hub: &Inner) -> bool {
        let now = Instant::now();
        for _ in 0..SETTLED_PER_TURN {
            let is_due = self.lingering.front().is_some_and(|(until, _)| *until <= now);
            let due = self.refused.pop_front();
            let due = due.or_else(|| self.lingering.pop_front_if(|_| is_due).map(|(_, user)| user));
            let Some(user) = due else { return false };
            let refused = self.refused.len();
            self.settle(hub, &user);
            if self.refused.len() > refused {
                // The next one would find no room either.
                return false;
            }
        }
        true
    }
}

/// What became of an announcement.
enum Told {
    Announced,
    /// The crowd's next count tells it, or nothing does.
    Counted,
    Refused,
}

impl Inner {
    fn announce(&self, message: impl FnOnce(usize) -> Message) -> Told {
        if !self.crowd.announces() {
            return Told::Counted;
        }
        if self.broker.is_some() {
            // Only all nodes together know whether there is anything to tell.
            return Told::Counted;
        }
        let present = self.registry.present_users();
        if self.crowd.is_crowded(present) {
            self.crowd.is_count_due.store(true, Ordering::Relaxed);
            return Told::Counted;
        }
        match self.tell(&message(present), Audience::Chat, None).now() {
            Ok(Err(PublishError::Overloaded)) => Told::Refused,
            // A hub that closes has no one left to tell.
            Ok(_) | Err(_) => Told::Announced,
        }
    }

    /// Users present on all nodes, as far as this one knows.
    pub(crate) fn present_users(&self) -> usize {
        self.broker
            .as_ref()
            .map_or_else(|| self.registry.present_users(), |broker| broker.presence.present())
    }

    /// Tells the application of a user who came or left, if this node is the only one; over several, whichever
    /// node [tells all](Self::tell_turn) does.
    fn notice_here(&self, change: Change) {
        if self.broker.is_none() {
            self.notice(change);
        }
    }

    /// Tells all, and the application, that a user came to the first node, or left the last.
    pub(crate) fn tell_turn(&self, change: &UserChange, present: usize) {
        let UserChange { user, name, connections, .. } = change;
        let notice = if connections.is_some() { Change::UserJoined } else { Change::UserLeft };
        self.notice(notice(user.clone()));
        if !self.crowd.announces() {
            return;
        }
        if self.crowd.is_crowded(present) {
            self.crowd.is_count_due.store(true, Ordering::Relaxed);
            return;
        }
        let tell = if connections.is_some() { chat::joined } else { chat::left };
        let window = self.config.namespace(&self.chat).map(Namespace::window).unwrap_or_default();
        let message = tell(user, name, present);
        if !self.broker.as_ref().is_some_and(|broker| broker.announce(self, &message, window)) {
            self.stats.presence_dropped();
        }
    }

    /// Tells a user alone that it is here, which others know already.
    pub(crate) fn tell_alone(&self, change: &UserChange, present: usize) {
        if !self.crowd.announces() {
            return;
        }
        let UserChange { user, name, .. } = change;
        let message = chat::joined(user, name, present);
        if let Some(room) = self.ring.reserve(message.len(), None) {
            // What came of it nobody asks.
            drop(self.order_here(room, user, Whom::default(), Act::Greet(message)));
        }
    }

    /// Sends the crowd's count, by whichever shard comes first and at most once a second.
    pub(crate) fn tell_count(&self) {
        let crowd = &self.crowd;
        if !crowd.is_count_due.load(Ordering::Relaxed) {
            return;
        }
        let now = self.started.elapsed().as_millis() as u64;
        let counted = crowd.counted.load(Ordering::Relaxed);
        let relaxed = Ordering::Relaxed;
        if now < counted + COUNT_INTERVAL.as_millis() as u64
            || crowd.counted.compare_exchange(counted, now, relaxed, relaxed).is_err()
        {
            return;
        }
        crowd.is_count_due.store(false, Ordering::Relaxed);
        let count = chat::count(self.present_users());
        if let Ok(Err(_)) = self.tell(&count, Audience::Chat, None).now() {
            crowd.is_count_due.store(true, Ordering::Relaxed);
        }
    }
}

/// Users settled in one turn: a fraction of a millisecond's work.
const SETTLED_PER_TURN: usize = 64;

/// Time between two counts of a crowd.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_ends_below_nine_tenths_of_where_it_began() {
        let crowd = Crowd::new(&Chat { announce_users: 100, ..Chat::default() });
        for (present, crowded) in
            [(100, false), (101, true), (100, true), (90, true), (89, false), (100, false)]
        {
            assert_eq!(crowd.is_crowded(present), crowded, "{present}");
        }
    }
}
