//! What the ring carries to a channel's subscribers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::ChannelId;
use super::publication::Publication;
use crate::frame::{self, Opcode};
use crate::message::Encoding;
use crate::protocol::centrifuge::{self, ClientInfo};

/// One entry of a channel.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) channel: ChannelId,
    /// Its number among the channel's posts, from 1 and without a gap.
    pub(crate) sequence: u64,
    pub(crate) content: Content,
}

/// What is posted.
#[derive(Debug)]
pub(crate) enum Content {
    /// For those who hear of joins and leaves.
    Announcement(Arc<Announcement>),
    Publication(Arc<Publication>),
}

impl Post {
    /// Its frame for a subscriber, if there is anything in it for that one.
    pub(crate) fn frame(&self, encoding: Encoding, hears_join_leave: bool) -> Option<&Bytes> {
        match &self.content {
            Content::Publication(publication) => Some(publication.encoded(encoding)),
            Content::Announcement(announcement) => {
                let hears = hears_join_leave && encoding == Encoding::Centrifuge;
                hears.then(|| announcement.encoded())
            }
        }
    }

    /// Bytes of it, about.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Publication(publication) => publication.size(),
            Content::Announcement(_) => 0,
        }
    }
}

/// Someone joined or left a channel.
#[derive(Debug)]
pub(crate) struct Announcement {
    channel: Arc<str>,
    change: Change,
    info: Arc<ClientInfo>,
    frame: OnceLock<Bytes>,
}

/// What happened to someone's presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Join,
    Leave,
}

impl Announcement {
    /// Word of a change.
    pub(crate) fn new(channel: Arc<str>, change: Change, info: Arc<ClientInfo>) -> Self {
        Self { channel, change, info, frame: OnceLock::new() }
    }

    fn encoded(&self) -> &Bytes {
        self.frame.get_or_init(|| {
            let kind = match self.change {
                Change::Join => "join",
                Change::Leave => "leave",
            };
            let push = centrifuge::presence_push(&self.channel, kind, &self.info);
            frame::encode(Opcode::Text, push.as_bytes())
        })
    }
}
