//! One message on a channel.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::history::Position;
use crate::protocol::centrifuge::ClientInfo;
use crate::protocol::sse;

/// What was published to a channel; shared by everyone who receives or remembers it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) channel: Arc<str>,
    /// JSON, as it was given.
    pub(crate) data: Bytes,
    /// Its place in the channel's stream, from 1; 0 where the channel has no history.
    pub(crate) offset: u64,
    /// Which stream that is; empty where the channel has no history.
    pub(crate) epoch: Arc<str>,
    /// Whose connection published it, if one did.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// What a backend attached.
    pub(crate) tags: BTreeMap<String, String>,
    /// Boxed, as few channels are streamed and many remember.
    sse: OnceLock<Box<sse::Event>>,
}

impl Publication {
    /// A publication without a place yet.
    pub(crate) fn new(data: Bytes) -> Self {
        Self {
            channel: Arc::default(),
            data,
            offset: 0,
            epoch: Arc::default(),
            info: None,
            tags: BTreeMap::new(),
            sse: OnceLock::new(),
        }
    }

    /// The same, whose place is known, of a channel.
    pub(crate) fn on(self, channel: &Arc<str>) -> Self {
        Self { channel: channel.clone(), ..self }
    }

    /// The same at its place in a channel's stream.
    pub(crate) fn at(self, channel: &Arc<str>, Position { offset, epoch }: Position) -> Self {
        Self { channel: channel.clone(), offset, epoch, ..self }
    }

    /// Where the stream stands after it.
    pub(crate) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: self.epoch.clone() }
    }

    /// Bytes of what was published, and of what goes with it of who published it.
    pub(crate) fn size(&self) -> usize {
        payload_size(&self.data, &self.tags) + self.info.as_ref().map_or(0, |info| info.size())
    }

    /// The publication as a Server-Sent Event.
    pub(crate) fn event(&self) -> &sse::Event {
        self.sse.get_or_init(|| Box::new(sse::Event::of(self)))
    }
}

/// Bytes of what is published.
pub(crate) fn payload_size(data: &[u8], tags: &BTreeMap<String, String>) -> usize {
    let tags = tags.iter().map(|(key, value)| key.len() + value.len());
    data.len() + tags.sum::<usize>()
}
