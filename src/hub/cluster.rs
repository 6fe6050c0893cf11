//! What a node cannot know or do alone: it asks the broker, or waits for it. On one node all is known here.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::channel::history::Position;
use crate::channel::{Channel, State, TooManyChannels};
use crate::error::PublishError;
use crate::hub::Inner;
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

impl Inner {
    /// Who is on a channel, on all nodes.
    pub(crate) async fn present(
        &self,
        channel: &str,
    ) -> Result<Vec<Arc<ClientInfo>>, PublishError> {
        if let Some(broker) = &self.broker {
            return broker.present(channel).await;
        }
        let present = self.channels.with(channel, |_, state| state.present().cloned().collect());
        Ok(present.unwrap_or_default())
    }

    /// How many connections and users are on a channel, on all nodes.
    pub(crate) async fn presence_counts(
        &self,
        channel: &str,
    ) -> Result<(usize, usize), PublishError> {
        if let Some(broker) = &self.broker {
            return broker.presence_counts(channel).await;
        }
        Ok(self.channels.with(channel, |_, state| state.counts()).unwrap_or_default())
    }

    /// How many connections a user has, on all nodes.
    pub(crate) async fn connections_of(&self, user: &UserId) -> Result<usize, PublishError> {
        match &self.broker {
            Some(broker) => broker.connections_of(user).await,
            None => Ok(self.user_connections(user)),
        }
    }

    /// Notes that a user's connections changed.
    pub(crate) fn note_user(&self, user: &UserId) {
        if let Some(broker) = &self.broker {
            broker.users.add(user.clone());
            broker.presence.note_user(user);
        }
    }

    /// Has a channel be brought up to where its stream is.
    pub(crate) fn doubt_channel(&self, name: &Arc<str>) {
        let Some(broker) = &self.broker else { return };
        self.channels.with(name, |_, state| {
            if let Some(mirror) = &mut state.mirror {
                mirror.fall_behind();
            }
        });
        broker.channels.add(name.clone());
    }

    /// Whether a channel has all that its stream has, with the position that a peer had seen at that time:
    /// perhaps on another node, where it came earlier. One that has not is brought up to it.
    pub(crate) fn ensure_current(
        &self,
        channel: &Channel,
        state: &mut State,
        from: Option<&Position>,
        seen: Instant,
    ) -> bool {
        let Some((broker, mirror)) = self.broker.as_ref().zip(state.mirror.as_mut()) else {
            return true;
        };
        let history = &state.history;
        let is_ahead = |from: &Position| {
            from.epoch == *history.epoch() && from.offset >= history.next_offset()
        };
        if mirror.is_current() && from.is_some_and(is_ahead) && !mirror.is_of(seen) {
            mirror.fall_behind();
            broker.channels.add(channel.name.clone());
        }
        mirror.is_current()
    }

    /// Whether a channel that is to be subscribed must be waited for; from now on it is followed.
    pub(crate) fn must_wait_for(
        &self,
        channel: &str,
        from: Option<&Position>,
        seen: Instant,
    ) -> bool {
        self.broker.is_some() && matches!(self.follow(channel, from, seen), Ok(Some(_)))
    }

    /// Waits until a channel has all that its stream has, with the position that a peer had seen at that
    /// time, but not for longer than the broker may take.
    pub(crate) async fn followed(
        &self,
        channel: &str,
        from: Option<&Position>,
        seen: Instant,
    ) -> Result<(), PublishError> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let followed = async {
            // One that goes while it is waited for is made again.
            while let Some(caught_up) = self.follow(channel, from, seen)? {
                let _ = caught_up.await;
            }
            Ok(())
        };
        let followed = tokio::time::timeout(broker.timeout, followed).await;
        followed.unwrap_or(Err(PublishError::Unavailable))
    }

    /// What resolves once a channel has caught up, unless it has.
    fn follow(
        &self,
        channel: &str,
        from: Option<&Position>,
        seen: Instant,
    ) -> Result<Option<oneshot::Receiver<()>>, PublishError> {
        let Some(namespace) = self.config.namespace(channel) else { return Ok(None) };
        let is_enough = |channel: &Arc<Channel>, state: &mut State| {
            self.ensure_current(channel, state, from, seen)
        };
        let caught_up = self.channels.follow(channel, namespace.window(), is_enough);
        caught_up.map_err(|TooManyChannels| PublishError::TooManyChannels)
    }
}
