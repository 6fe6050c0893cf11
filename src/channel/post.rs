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
    /// Nothing: shows by its number that something before it never came.
    Nothing,
    Publication(Arc<Publication>, Frames),
}

/// A publication's frames, each made at most once. Not of the publication, which is remembered for
/// far longer than anybody is sent them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    raw: OnceLock<Bytes>,
    centrifuge: OnceLock<Bytes>,
}

impl Frames {
    fn encoded<'a>(&'a self, publication: &'a Publication, encoding: Encoding) -> &'a Bytes {
        let frame = |text: &[u8]| frame::encode(Opcode::Text, text);
        match encoding {
            Encoding::Raw => self.raw.get_or_init(|| frame(&publication.data)),
            Encoding::Centrifuge => self
                .centrifuge
                .get_or_init(|| frame(centrifuge::publication_push(publication).as_bytes())),
            Encoding::Sse => &publication.event().with_id,
        }
    }
}

impl From<Arc<Publication>> for Content {
    fn from(publication: Arc<Publication>) -> Self {
        Self::Publication(publication, Frames::default())
    }
}

impl Post {
    /// Its frame for a subscriber, if there is anything in it for that one.
    pub(crate) fn frame(&self, encoding: Encoding, hears_join_leave: bool) -> Option<&Bytes> {
        match &self.content {
            Content::Publication(publication, frames) => {
                Some(frames.encoded(publication, encoding))
            }
            Content::Nothing => None,
            Content::Announcement(announcement) => {
                let hears = hears_join_leave && encoding == Encoding::Centrifuge;
                hears.then(|| announcement.encoded())
            }
        }
    }

    /// Bytes of it, about.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Publication(publication, _) => publication.size(),
            Content::Announcement(announcement) => announcement.info.size(),
            Content::Nothing => 0,
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
