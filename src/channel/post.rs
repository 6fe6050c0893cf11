//! What the ring carries to a channel's subscribers.

use std::slice;
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
    Publication(Framed),
    /// Several that came together.
    Publications(Vec<Framed>),
}

/// A publication and its frames, each made at most once. They are not the publication's own, as that is
/// remembered for far longer than anybody is sent them.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) publication: Arc<Publication>,
    raw: OnceLock<Bytes>,
    centrifuge: OnceLock<Bytes>,
}

impl Framed {
    fn encoded(&self, encoding: Encoding) -> &Bytes {
        let frame = |text: &[u8]| frame::encode(Opcode::Text, text);
        let publication = &self.publication;
        match encoding {
            Encoding::Raw => self.raw.get_or_init(|| frame(&publication.data)),
            Encoding::Centrifuge => self
                .centrifuge
                .get_or_init(|| frame(centrifuge::publication_push(publication).as_bytes())),
            Encoding::Sse => &publication.event().with_id,
        }
    }
}

impl From<Arc<Publication>> for Framed {
    fn from(publication: Arc<Publication>) -> Self {
        Self { publication, raw: OnceLock::new(), centrifuge: OnceLock::new() }
    }
}

impl From<Arc<Publication>> for Content {
    fn from(publication: Arc<Publication>) -> Self {
        Self::Publication(publication.into())
    }
}

impl Post {
    pub(crate) fn publications(&self) -> &[Framed] {
        match &self.content {
            Content::Publication(publication) => slice::from_ref(publication),
            Content::Publications(publications) => publications,
            Content::Announcement(_) | Content::Nothing => &[],
        }
    }

    /// Its frames for a subscriber: of what there is in it for that one.
    pub(crate) fn frames(
        &self,
        encoding: Encoding,
        hears_join_leave: bool,
    ) -> impl Iterator<Item = &Bytes> {
        let announcement = match &self.content {
            Content::Announcement(announcement)
                if hears_join_leave && encoding == Encoding::Centrifuge =>
            {
                Some(announcement.encoded())
            }
            _ => None,
        };
        let publications = self.publications().iter().map(move |it| it.encoded(encoding));
        announcement.into_iter().chain(publications)
    }

    /// Frames that there are in it for a subscriber at most, and one at least.
    pub(crate) fn count(&self) -> usize {
        self.publications().len().max(1)
    }

    /// Bytes of it, about.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Announcement(announcement) => announcement.info.size(),
            _ => self.publications().iter().map(|it| it.publication.size()).sum(),
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
