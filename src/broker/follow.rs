//! Topics: this node subscribes to what its connections need and what it is told itself, and to no more.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{Failure, Session};
use super::{Broker, Topic, catch_up};
use crate::hub::Inner;
use crate::user::UserId;

/// Follows all that is there, then what changes, for as long as the session lasts.
pub(super) async fn run(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
) -> Result<Infallible, Failure> {
    let mut following = Following {
        hub,
        broker,
        session,
        topics: HashSet::new(),
        later: Vec::new(),
        retry_at: Instant::now(),
    };
    following.all().await?;
    broker.health.follow();
    loop {
        let has_later = !following.later.is_empty();
        tokio::select! {
            names = broker.channels.take(BATCH) => {
                following.channels(names.items().to_vec()).await?;
                names.done_but(Vec::new());
            }
            users = broker.users.take(BATCH) => {
                following.users(users.items().to_vec()).await?;
                users.done_but(Vec::new());
            }
            () = tokio::time::sleep_until(following.retry_at), if has_later => {
                following.later.drain(..).for_each(|name| broker.channels.add(name));
            }
        }
    }
}

struct Following<'a> {
    hub: &'a Arc<Inner>,
    broker: &'a Broker,
    session: &'a Session,
    /// Those that are subscribed.
    topics: HashSet<Topic>,
    /// Channels whose streams could not be read.
    later: Vec<Arc<str>>,
    /// When they are tried again.
    retry_at: Instant,
}

impl Following<'_> {
    /// Looks at all that there is.
    async fn all(&mut self) -> Result<(), Failure> {
        let mine = [Topic::All, Topic::Node(self.hub.uid.as_str().into())];
        self.subscribe(self.session.pulses().iter().cloned().chain(mine).collect()).await?;
        let names: Vec<_> = self.hub.channels.names().flatten().collect();
        for names in names.chunks(BATCH) {
            self.channels(names.to_vec()).await?;
        }
        let users: Vec<_> = self.hub.registry.users().flatten().collect();
        for users in users.chunks(BATCH) {
            self.users(users.to_vec()).await?;
        }
        Ok(())
    }

    /// Looks at channels again: which are wanted, and which must be read.
    async fn channels(&mut self, names: Vec<Arc<str>>) -> Result<(), Failure> {
        let is_here = |name: &Arc<str>| self.hub.channels.with(name, |_, _| ()).is_some();
        let (wanted, unwanted): (Vec<_>, Vec<_>) = names.into_iter().partition(is_here);
        // All of the chat comes by the topic that is always subscribed.
        let of_chat = |name: &&Arc<str>| **name != self.hub.chat;
        let topics = |names: &[Arc<str>]| -> Vec<_> {
            names.iter().filter(of_chat).cloned().map(Topic::Channel).collect()
        };
        let (new, old) = (topics(&wanted), topics(&unwanted));
        self.subscribe(new).await?;
        self.unsubscribe(old).await?;
        for names in wanted.chunks(READS) {
            let failed = catch_up::run(self.hub, self.broker, self.session, names).await?;
            if self.later.is_empty() {
                self.retry_at = Instant::now() + RETRY;
            }
            self.later.extend(failed);
        }
        Ok(())
    }

    /// Looks at users again: which have connections.
    async fn users(&mut self, users: Vec<UserId>) -> Result<(), Failure> {
        let holds = &self.broker.holds;
        let is_here =
            |user: &UserId| self.hub.registry.targets(user).is_some() || holds.is_held(user);
        let (wanted, unwanted): (Vec<_>, Vec<_>) = users.into_iter().partition(is_here);
        self.subscribe(wanted.iter().cloned().map(Topic::User).collect()).await?;
        wanted.iter().for_each(|user| holds.wake(user));
        self.unsubscribe(unwanted.into_iter().map(Topic::User).collect()).await
    }

    async fn subscribe(&mut self, topics: Vec<Topic>) -> Result<(), Failure> {
        let new: Vec<_> = topics.into_iter().filter(|topic| !self.topics.contains(topic)).collect();
        if !new.is_empty() {
            self.session.subscribe(&new).await?;
            self.topics.extend(new);
            self.count();
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, topics: Vec<Topic>) -> Result<(), Failure> {
        let old: Vec<_> = topics.into_iter().filter(|topic| self.topics.remove(topic)).collect();
        if !old.is_empty() {
            self.session.unsubscribe(&old).await?;
            self.count();
        }
        Ok(())
    }

    fn count(&self) {
        self.broker.stats.topics.store(self.topics.len() as u64, Ordering::Relaxed);
    }
}

/// Topics that are subscribed at once.
const BATCH: usize = 1000;

/// Streams that are read at once: few, as each may be long.
const READS: usize = 16;

/// Time until a stream that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(1);
