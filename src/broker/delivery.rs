//! What comes from the broker, on its way into the ring.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::envelope::{Envelope, spoken};
use super::{Broker, BrokerStats, Topic, catch_up};
use crate::channel::history::Position;
use crate::channel::post::{Announcement, Change, Content, Framed, Post};
use crate::channel::publication::Publication;
use crate::channel::{Channel, State};
use crate::hub::Inner;
use crate::message::Message;
use crate::protocol::centrifuge::ClientInfo;
use crate::ring::{Audience, Load};

/// Gives what came by a topic to those that it is for, once the ring has room.
pub(super) async fn deliver(hub: &Arc<Inner>, broker: &Broker, topic: &Topic, payload: &Bytes) {
    match Envelope::parse(payload) {
        Some(Envelope::Several(bodies)) => {
            if let Some((name, publications)) = publications_of(topic, &bodies) {
                return publish_all(hub, broker, name, publications).await;
            }
            for body in bodies {
                let envelope = Envelope::read(&body, Position::default());
                deliver_one(hub, broker, topic, envelope).await;
            }
        }
        envelope => deliver_one(hub, broker, topic, envelope).await,
    }
}

async fn deliver_one(hub: &Arc<Inner>, broker: &Broker, topic: &Topic, envelope: Option<Envelope>) {
    BrokerStats::count(&broker.stats.received);
    let Some(envelope) = envelope else { return BrokerStats::count(&broker.stats.malformed) };
    match (topic, envelope) {
        (Topic::All, Envelope::Message(message, audience, position)) => {
            let publication = spoken(&message, position);
            tell(hub, broker, &message, audience, publication).await;
        }
        (Topic::All, Envelope::Publication(publication)) => {
            let message = Message::text_of(publication.data.clone());
            tell(hub, broker, &message, Audience::Chat, publication).await;
        }
        (Topic::All, Envelope::Clear) => drop(hub.channels.clear(&hub.chat)),
        (Topic::All, Envelope::Change(change, info)) => {
            announce(hub, &hub.chat, change, info).await;
        }
        (Topic::Channel(name), Envelope::Publication(publication)) => {
            publish(hub, broker, name, publication).await;
        }
        (Topic::Channel(name), Envelope::Clear) => drop(hub.channels.clear(name)),
        (Topic::Channel(name), Envelope::Change(change, info)) => {
            announce(hub, name, change, info).await;
        }
        (Topic::User(_), Envelope::Unicast(user, message)) => {
            let room = hub.ring.room().wait(message.len()).await;
            if let Some(targets) = hub.registry.targets(&user) {
                hub.send(room, Load::Unicast(targets, message));
            }
        }
        (Topic::User(_), Envelope::Order(order)) => broker.obey(hub, *order).await,
        (Topic::All, Envelope::Question(question)) => broker.reply(hub, question),
        (Topic::Node(_), Envelope::Reply(reply)) => broker.hear_reply(reply),
        (Topic::Pulse(_), Envelope::Pulse(number)) => broker.health.hear(number),
        _ => BrokerStats::count(&broker.stats.malformed),
    }
}

/// A publication to the subscribers of its channel.
async fn publish(hub: &Inner, broker: &Broker, name: &str, publication: Publication) {
    let room = hub.ring.room().wait(hub.ring_bytes(publication.size())).await;
    hub.channels.with(name, |channel, state| {
        if is_next(broker, channel, state, &publication) {
            catch_up::post(hub, channel, state, publication, Duration::ZERO, room);
        }
    });
}

/// All that came together, if it is of a channel and nothing else than publications.
fn publications_of<'t>(topic: &'t Topic, bodies: &[Bytes]) -> Option<(&'t str, Vec<Publication>)> {
    let Topic::Channel(name) = topic else { return None };
    let mut publications = Vec::with_capacity(bodies.len());
    for body in bodies {
        match Envelope::read(body, Position::default())? {
            Envelope::Publication(publication) => publications.push(publication),
            _ => return None,
        }
    }
    Some((name, publications))
}

/// Publications without positions to the subscribers of their channel, as few posts.
async fn publish_all(hub: &Inner, broker: &Broker, name: &str, all: Vec<Publication>) {
    BrokerStats::count_all(&broker.stats.received, all.len());
    let mut rest = all.into_iter();
    while !rest.as_slice().is_empty() {
        let sizes = rest.as_slice().iter().map(|publication| hub.ring_bytes(publication.size()));
        let (count, room) = hub.ring.room().wait_together(sizes.take(POST_MAX)).await;
        let together: Vec<_> = rest.by_ref().take(count).collect();
        hub.channels.with(name, |channel, state| {
            let framed = together.into_iter().map(|publication| {
                Framed::from(hub.channels.take(channel, state, publication, Duration::ZERO))
            });
            let content = Content::Publications(framed.collect());
            let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
            hub.send(room, Load::Post(post));
        });
    }
}

/// A message to all or to the chat, and what it is on the chat's channel to the subscribers of that.
async fn tell(
    hub: &Inner,
    broker: &Broker,
    message: &Message,
    audience: Audience,
    publication: Publication,
) {
    let room = hub.ring.room().wait(message.len()).await;
    if hub.chatting() > 0 {
        message.frame();
    }
    let mut room = Some(room);
    let mut send = |post| {
        if let Some(room) = room.take() {
            hub.send(room, Load::Broadcast(message.clone(), audience, post));
        }
    };
    hub.channels.with(&hub.chat, |channel, state| {
        let post = is_next(broker, channel, state, &publication).then(|| {
            let publication = hub.channels.take(channel, state, publication, Duration::ZERO);
            let sequence = state.take_sequence();
            Post { channel: channel.id, sequence, content: Content::from(publication) }
        });
        send(post);
    });
    send(None);
}

/// Word of who came or went to those who hear of that.
async fn announce(hub: &Inner, name: &str, change: Change, info: ClientInfo) {
    let room = hub.ring.room().wait(hub.ring_bytes(info.size())).await;
    hub.channels.with(name, |channel, state| {
        let announcement = Announcement::new(channel.name.clone(), change, Arc::new(info));
        let content = Content::Announcement(Arc::new(announcement));
        let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
        hub.ring.send(room, Load::Post(post));
    });
}

/// Whether a publication is the one that comes next; if something before it lacks, the stream is read.
fn is_next(
    broker: &Broker,
    channel: &Channel,
    state: &mut State,
    publication: &Publication,
) -> bool {
    let Publication { offset, epoch, .. } = publication;
    let history = &state.history;
    let Some(mirror) = state.mirror.as_mut().filter(|_| *offset > 0) else { return true };
    if !mirror.is_current() {
        mirror.pass_over(publication.position());
        return false;
    }
    let is_of_this_stream = epoch == history.epoch();
    if is_of_this_stream && *offset <= history.next_offset() {
        // One before that came already, by what was read.
        return *offset == history.next_offset();
    }
    mirror.fall_behind();
    mirror.pass_over(publication.position());
    broker.channels.add(channel.name.clone());
    false
}

/// Publications of a post: so few that a turn of the pump stays short.
const POST_MAX: usize = 256;
