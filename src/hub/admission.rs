//! The way of a publish into the ring, or to the broker: to all, to a user, and what is in its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::close::CloseReason;
use crate::error::PublishError;
use crate::hub::{Inner, Phase};
use crate::message::Message;
use crate::receipt::Receipt;
use crate::ring::{Audience, ENTRY_BYTES, Load, Reservation, Room, Share};
use crate::user::UserId;

impl Inner {
    pub(crate) fn broadcast(&self, message: &Message) -> Receipt<usize> {
        let told = match self.fits(message) {
            Ok(()) => self.tell(message, Audience::Everyone, None),
            Err(error) => Receipt::known(Err(error)),
        };
        self.count_refusal(told)
    }

    pub(crate) fn send_to_user(&self, user: &UserId, message: &Message) -> Receipt<usize> {
        let unicast = || {
            let targets = self.registry.targets(user)?;
            Some((targets.as_slice().len(), Load::Unicast(targets, message.clone())))
        };
        let sent = match (self.fits(message), &self.broker) {
            (Err(error), _) => Receipt::known(Err(error)),
            (Ok(()), None) => Receipt::known(self.admit(message.len(), unicast)),
            (Ok(()), Some(broker)) => broker.send_to_user(self, user, message),
        };
        self.count_refusal(sent)
    }

    pub(crate) fn disconnect_user(&self, user: &UserId, reason: CloseReason) -> Receipt<usize> {
        let sent = match &self.broker {
            None => Receipt::known(self.admit(0, || {
                let targets = self.registry.targets(user)?;
                Some((targets.as_slice().len(), Load::Close(targets, reason)))
            })),
            Some(broker) => broker.disconnect(self, user, reason),
        };
        self.count_refusal(sent)
    }

    /// Counts a refusal that is known already; the broker counts its own.
    pub(crate) fn count_refusal<T>(&self, receipt: Receipt<T>) -> Receipt<T> {
        receipt.now().map_or_else(
            |receipt| receipt,
            |known| Receipt::known(known.map_err(|error| self.stats.refuse(error))),
        )
    }

    /// How many connections of this node chat.
    pub(crate) fn chatting(&self) -> usize {
        self.chatting.load(Ordering::SeqCst)
    }

    /// Connections of this node that a message to an audience is for.
    pub(crate) fn reach(&self, audience: Audience) -> usize {
        match audience {
            Audience::Everyone => self.connections.load(Ordering::SeqCst),
            Audience::Chat => self.chatting() + self.subscribers(&self.chat),
        }
    }

    /// Subscribers of a channel on this node.
    pub(crate) fn subscribers(&self, channel: &str) -> usize {
        self.channels.with(channel, |_, state| state.subscribers()).unwrap_or(0)
    }

    /// What a publish that waits is waiting for room in.
    pub(crate) fn room(&self) -> &Arc<Room> {
        self.broker.as_ref().map_or(self.ring.room(), Broker::room)
    }

    fn fits(&self, message: &Message) -> Result<(), PublishError> {
        let (size, max) = (message.len(), self.config.limits.message_bytes);
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }

    /// The way of a publish to some: room, then encoding and the ring. `load` runs once room
    /// is reserved; without anyone to reach the room is given back.
    pub(crate) fn admit(
        &self,
        size: usize,
        load: impl FnOnce() -> Option<(usize, Load)>,
    ) -> Result<usize, PublishError> {
        let reservation = self.reserve(size, None)?;
        let Some((reach, load)) = load() else { return Ok(0) };
        self.send(reservation, load);
        Ok(reach)
    }

    /// What so many bytes count in the ring: at most what one connection may hold of it, as a
    /// message with all that is said of its publisher would else never find room.
    pub(crate) fn ring_bytes(&self, size: usize) -> usize {
        size.min((self.config.limits.ring_bytes / 4).saturating_sub(ENTRY_BYTES))
    }

    pub(crate) fn reserve(
        &self,
        size: usize,
        share: Option<&Arc<Share>>,
    ) -> Result<Reservation, PublishError> {
        let reservation = self.ring.reserve(size, share);
        // Looked at after reserving, as a drain waits for all that reserved before it began.
        if self.phase() != Phase::Open {
            return Err(PublishError::Closed);
        }
        reservation.ok_or(PublishError::Overloaded)
    }

    /// Resolves when nothing that was admitted is on its way, neither to the broker nor to a shard.
    pub(crate) async fn flushed(&self) {
        if let Some(broker) = &self.broker {
            broker.room().empty().await;
        }
        self.ring.room().empty().await;
    }

    pub(crate) fn send(&self, reservation: Reservation, load: Load) {
        self.stats.admit(&load);
        self.ring.send(reservation, load);
    }
}
