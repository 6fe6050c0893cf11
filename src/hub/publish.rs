//! Publishing to a channel: what is published, and what became of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::broker::{self, Broker, Outgoing};
use crate::channel::TooManyChannels;
use crate::channel::history::{Position, Window};
use crate::channel::post::{Content, Post};
use crate::channel::publication::{Publication, payload_size};
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
#[derive(Clone, Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) channel: Cow<'a, str>,
    /// JSON.
    pub(crate) data: Bytes,
    /// Whose connection publishes it, if one does.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// What a backend attaches.
    pub(crate) tags: BTreeMap<String, String>,
    /// Whether it goes to subscribers alone, whatever the channel remembers of others.
    pub(crate) skips_history: bool,
    /// Under which it is published once, and a repeated request answered as the first one was.
    pub(crate) idempotency_key: Option<String>,
    /// What the publishing connection may hold of the ring.
    pub(crate) share: Option<&'a Arc<Share>>,
}

impl<'a> Publish<'a> {
    /// A publish of nothing but data.
    pub(crate) fn new(channel: impl Into<Cow<'a, str>>, data: impl Into<Bytes>) -> Self {
        Self {
            channel: channel.into(),
            data: data.into(),
            info: None,
            tags: BTreeMap::new(),
            skips_history: false,
            idempotency_key: None,
            share: None,
        }
    }

    fn into_publication(self) -> Publication {
        let mut publication = Publication::new(self.data);
        (publication.info, publication.tags) = (self.info, self.tags);
        publication
    }
}

impl Inner {
    /// What a backend publishes.
    pub(crate) fn publish(&self, publish: Publish<'_>) -> Receipt<Published> {
        self.count_refusal(self.post(publish))
    }

    /// The same of several in their order, but for what is wrong already; returns what became of each.
    pub(crate) async fn publish_all<'p, E: From<PublishError>>(
        &self,
        publishes: impl Iterator<Item = Result<Publish<'p>, E>>,
    ) -> Vec<Result<Published, E>> {
        if let Some(broker) = &self.broker {
            return self.publish_together(broker, publishes).await;
        }
        let mut published = Vec::new();
        for (i, publish) in publishes.enumerate() {
            published.push(publish.and_then(|publish| Ok(self.publish(publish).wait()?)));
            turn_after(i).await;
        }
        published
    }

    /// A publish whose refusal is not yet the last word, so not counted.
    pub(crate) fn post(&self, publish: Publish<'_>) -> Receipt<Published> {
        let share = publish.share;
        match &self.broker {
            None => Receipt::known(self.post_once(publish)),
            Some(broker) => match self.outgoing(&publish) {
                Ok(outgoing) => broker.publish(self, outgoing, share),
                Err(error) => Receipt::known(Err(error)),
            },
        }
    }

    async fn publish_together<'p, E: From<PublishError>>(
        &self,
        broker: &Broker,
        publishes: impl Iterator<Item = Result<Publish<'p>, E>>,
    ) -> Vec<Result<Published, E>> {
        let (mut together, mut left) = (broker.together(), Vec::new());
        for (i, publish) in publishes.enumerate() {
            let outgoing = publish.and_then(|publish| {
                self.outgoing(&publish).map_err(|error| self.stats.refuse(error).into())
            });
            left.push(outgoing.map(|outgoing| together.add(outgoing)));
            if together.is_full() {
                together.go(self).await;
            }
            turn_after(i).await;
        }
        together.go(self).await;
        let mut answers = together.done(self).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(PublishError::Uncertain));
        left.into_iter().map(|left| left.and_then(|()| Ok(next()?))).collect()
    }

    /// What goes to the broker.
    fn outgoing(&self, publish: &Publish<'_>) -> Result<Outgoing, PublishError> {
        let window = self.judge(publish)?;
        Ok(broker::to_channel(self, publish, window))
    }

    /// How much is to be remembered of a publish that may be made.
    fn judge(&self, publish: &Publish<'_>) -> Result<Window, PublishError> {
        let namespace =
            self.namespace(&publish.channel).map_err(|_| PublishError::UnknownChannel)?;
        let size = payload_size(&publish.data, &publish.tags);
        let max = namespace.max_bytes(&self.config.limits);
        if size > max {
            return Err(PublishError::TooLarge { size, max });
        }
        Ok(if publish.skips_history { Window::default() } else { namespace.window() })
    }

    /// Publishes on this node, which is the only one.
    fn post_once(&self, mut publish: Publish<'_>) -> Result<Published, PublishError> {
        let window = self.judge(&publish)?;
        let (channel, key) = (mem::take(&mut publish.channel), publish.idempotency_key.take());
        let post = || self.post_here(&channel, publish, window);
        match key {
            None => post(),
            Some(key) => self.answered.once(&channel, &key, Instant::now(), post),
        }
    }

    fn post_here(
        &self,
        channel: &str,
        publish: Publish<'_>,
        window: Window,
    ) -> Result<Published, PublishError> {
        let (share, publication) = (publish.share, publish.into_publication());
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

/// Lets others have their turn after so many of what one request asks for.
pub(crate) async fn turn_after(i: usize) {
    if i % TURN == TURN - 1 {
        tokio::task::yield_now().await;
    }
}

/// Commands or publishes of a turn.
const TURN: usize = 64;
