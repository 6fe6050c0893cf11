//! Where a stream of several channels stands on each of them.

use std::cell::RefCell;

use crate::channel::ChannelId;
use crate::channel::history::Position;
use crate::protocol::sse;

/// The positions that a peer is told with each event, in the order in which it named the channels.
#[derive(Debug)]
pub(crate) struct Cursor(RefCell<Vec<Place>>);

#[derive(Debug)]
struct Place {
    /// Set once it is subscribed.
    channel: Option<ChannelId>,
    /// `None` where the channel remembers nothing, or the peer has seen nothing of it yet.
    position: Option<Position>,
}

impl Cursor {
    /// A cursor on as many channels as there are positions, none of them subscribed.
    pub(crate) fn new(positions: impl IntoIterator<Item = Option<Position>>) -> Self {
        let places = positions.into_iter().map(|position| Place { channel: None, position });
        Self(RefCell::new(places.collect()))
    }

    /// Says where the stream stands on channel number `index`.
    pub(crate) fn set(&self, index: usize, position: Option<Position>) {
        if let Some(place) = self.0.borrow_mut().get_mut(index) {
            place.position = position;
        }
    }

    /// Says that channel number `index` is subscribed.
    pub(crate) fn enter(&self, index: usize, channel: ChannelId) {
        if let Some(place) = self.0.borrow_mut().get_mut(index) {
            place.channel = Some(channel);
        }
    }

    /// Moves on to a publication of a channel that is subscribed; returns the line that its event
    /// begins with.
    pub(crate) fn advance(&self, channel: ChannelId, offset: u64) -> String {
        let mut places = self.0.borrow_mut();
        let place = places.iter_mut().find(|place| place.channel == Some(channel));
        if let Some(position) = place.and_then(|place| place.position.as_mut()) {
            position.offset = offset;
        }
        sse::id_line(places.iter().map(|place| place.position.as_ref()))
    }

    /// The line that says where the stream stands.
    pub(crate) fn id_line(&self) -> String {
        sse::id_line(self.0.borrow().iter().map(|place| place.position.as_ref()))
    }
}
