//! Publishing to a channel: what is published, and what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::channel::TooManyChannels;
use crate::channel::history::{Position, Window};
use crate::channel::post::{Content, Post};
use crate::channel::publication::Publication;
use crate::config::Namespace;
use crate::error::PublishError;
use crate::hub::Inner;
use crate::message::Message;
use crate::protocol::centrifuge::ClientInfo;
use crate::receipt::Receipt;
use crate::ring::{Audience, Load, Share};

/// What became of a publish to a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Connections of this node that it was admitted for; not that any of them reads it.
    pub connections: usize,
    /// Its place in the channel's history, from 1; 0 if the channel does not remember it.
    pub offset: u64,
    /// The stream that the offset counts in; empty if the channel does not remember it.
    pub epoch: Arc<str>,
}

/// A publish to a channel.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) channel: &'a str,
    /// JSON.
    pub(crate) data: Bytes,
    /// Whose connection publishes it, if one does.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// What a backend attaches.
    pub(crate) tags: BTreeMap<String, String>,
    /// Whether it goes to subscribers alone, whatever the channel remembers of others.
    pub(crate) skips_history: bool,
    /// What the publishing connection may hold of the ring.
    pub(crate) share: Option<&'a Arc<Share>>,
}

impl<'a> Publish<'a> {
    /// A publish of nothing but data.
    pub(crate) fn new(channel: &'a str, data: impl Into<Bytes>) -> Self {
        Self {
            channel,
            data: data.into(),
            info: None,
            tags: BTreeMap::new(),
            skips_history: false,
            share: None,
        }
    }
}

impl Inner {
    /// What a backend publishes. Under an idempotency key it is published once, and a repeated
    /// request is answered as the first one was.
    pub(crate) fn publish(
        &self,
        publish: Publish<'_>,
        idempotency_key: Option<&str>,
    ) -> Receipt<Published> {
        self.count_refusal(self.post(publish, idempotency_key))
    }

    /// A publish whose refusal is not yet the last word, so not counted.
    pub(crate) fn post(
        &self,
        publish: Publish<'_>,
        idempotency_key: Option<&str>,
    ) -> Receipt<Published> {
        let (channel, share) = (publish.channel, publish.share);
        let (publication, window) = match self.judge(publish) {
            Ok(judged) => judged,
            Err(error) => return Receipt::known(Err(error)),
        };
        if let Some(broker) = &self.broker {
            let remembered = (window, idempotency_key);
            return broker.publish(self, channel, &publication, remembered, share);
        }
        let post = || self.post_here(channel, publication, window, share);
        Receipt::known(match idempotency_key {
            None => post(),
            Some(key) => self.answered.once(channel, key, Instant::now(), post),
        })
    }

    /// What is published, and how much is to be remembered of it.
    fn judge(&self, publish: Publish<'_>) -> Result<(Publication, Window), PublishError> {
        let Publish { channel, data, info, tags, skips_history, share: _ } = publish;
        let namespace = self.namespace(channel).map_err(|_| PublishError::UnknownChannel)?;
        let mut publication = Publication::new(data);
        (publication.info, publication.tags) = (info, tags);
        let (size, max) = (publication.payload_size(), namespace.max_bytes(&self.config.limits));
        if size > max {
            return Err(PublishError::TooLarge { size, max });
        }
        Ok((publication, if skips_history { Window::default() } else { namespace.window() }))
    }

    /// Publishes on this node, which is the only one.
    fn post_here(
        &self,
        channel: &str,
        publication: Publication,
        window: Window,
        share: Option<&Arc<Share>>,
    ) -> Result<Published, PublishError> {
        if channel == &*self.chat {
            let message = Message::text_of(publication.data.clone());
            return self.broadcast_with(&message, Audience::Chat, || publication, window, share);
        }
        let reservation = self.reserve(self.ring_bytes(publication.size()), share)?;
        self.place(
            channel,
            || publication,
            window,
            |post, published| {
                if let Some(post) = post {
                    self.send(reservation, Load::Post(post));
                }
                published
            },
        )
    }

    /// Sends a message to all, and what it comes to on the chat's channel. Its refusal is not yet the
    /// last word, so not counted, and its size was judged before it was wrapped.
    pub(crate) fn tell(
        &self,
        message: &Message,
        audience: Audience,
        share: Option<&Arc<Share>>,
    ) -> Receipt<usize> {
        let window = self.config.namespace(&self.chat).map(Namespace::window).unwrap_or_default();
        if let Some(broker) = &self.broker {
            return broker.tell(self, message, audience, window, share);
        }
        let publication = || Publication::new(message.json().clone());
        let published = self.broadcast_with(message, audience, publication, window, share);
        Receipt::known(published.map(|published| published.connections))
    }

    fn broadcast_with(
        &self,
        message: &Message,
        audience: Audience,
        publication: impl FnOnce() -> Publication,
        window: Window,
        share: Option<&Arc<Share>>,
    ) -> Result<Published, PublishError> {
        let reservation = self.reserve(message.len(), share)?;
        let chatting = self.chatting.load(Ordering::SeqCst);
        if chatting > 0 {
            // Encoded here rather than by the shards, one of which would else keep the rest waiting.
            message.frame();
        }
        self.place(&self.chat, publication, window, |post, published| {
            self.send(reservation, Load::Broadcast(message.clone(), audience, post));
            let connections = match audience {
                Audience::Chat => chatting + published.connections,
                Audience::Everyone => self.connections.load(Ordering::SeqCst),
            };
            Published { connections, ..published }
        })
    }

    /// Gives a publication its place, if its channel is there or remembers, and has it sent before
    /// another one gets the next.
    fn place(
        &self,
        name: &str,
        publication: impl FnOnce() -> Publication,
        window: Window,
        send: impl FnOnce(Option<Post>, Published) -> Published,
    ) -> Result<Published, PublishError> {
        let placed = self.channels.publish_with(name, window, |place| {
            let Some((channel, state)) = place else { return send(None, Published::default()) };
            let publication =
                self.channels.append(channel, state, publication(), window, Instant::now());
            let offset = publication.offset;
            let content = Content::from(publication);
            let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
            let epoch =
                if offset > 0 { state.history.position() } else { Position::default() }.epoch;
            send(Some(post), Published { connections: state.subscribers(), offset, epoch })
        });
        placed.map_err(|TooManyChannels| PublishError::TooManyChannels)
    }
}
