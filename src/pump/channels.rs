//! HOT. What a batch brings to the subscribers of channels.
//!
//! # Cost
//!
//! Per channel and turn: one look-up, and one burst for each encoding that someone there has,
//! however many subscribers. Per subscriber and turn: one
//! [`Outbox::push`](crate::outbox::Outbox::push), on a cell of this thread.

use crate::close::CloseReason;
use crate::message::Encoding;
use crate::outbox::Push;
use crate::ring::{Load, Post};
use crate::subscribers::OfChannel;

use super::{Batch, Outcome, Turn};

impl Turn<'_> {
    /// Puts a batch's posts into the outboxes, each channel's in one burst.
    pub(super) fn post(&self, batch: &Batch, outcome: &mut Outcome) {
        let posts = batch.entries.iter().filter_map(|entry| match &entry.load {
            Load::Broadcast(_, _, post) => post.as_ref(),
            Load::Post(post) => Some(post),
            Load::Close(..) | Load::Probe(_) | Load::Unicast(..) => None,
        });
        let mut posts: Vec<&Post> = posts.collect();
        // Stable, so each channel's posts keep their order; between channels none is promised.
        posts.sort_by_key(|post| post.channel);
        for posts in posts.chunk_by(|a, b| a.channel == b.channel) {
            self.subscribers.with(posts[0].channel, |of_channel| {
                self.post_to(posts, of_channel, outcome);
            });
        }
    }

    /// One channel's posts to its subscribers.
    fn post_to(&self, posts: &[&Post], of_channel: &OfChannel, outcome: &mut Outcome) {
        let first = posts[0].sequence;
        let is_whole = posts.iter().enumerate().all(|(i, post)| post.sequence == first + i as u64);
        if !of_channel.see(first, first + posts.len() as u64 - 1) || !is_whole {
            outcome.gaps.push(posts[0].channel);
            return;
        }
        let bytes = posts.iter().map(|post| post.publication.data.len()).sum();
        let mut bursts = [const { None }; Encoding::ALL.len()];
        // The same for all but who subscribed while these were under way.
        let frames = posts.len() as u64;
        for subscriber in of_channel.iter() {
            let encoding = subscriber.connection.encoding;
            let burst = bursts[encoding as usize].get_or_insert_with(|| {
                self.join(posts.iter().map(|post| post.publication.encoded(encoding)), bytes)
            });
            let Some(burst) = burst else { continue };
            let had = (subscriber.since + 1).saturating_sub(first).min(frames);
            let start = burst.frame_start(had as usize);
            if start >= burst.len() {
                continue;
            }
            let connection = &subscriber.connection;
            match connection.outbox.borrow_mut().push(burst, start, burst.len(), self.max_bytes) {
                Push::Queued => outcome.deliveries += frames - had,
                Push::Full => outcome.closes.push((connection.clone(), CloseReason::SLOW)),
                Push::Closing => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::channel::Channels;
    use crate::channel::history::Window;
    use crate::channel::publication::Publication;
    use crate::connection::{Connection, Connections, Life};
    use crate::outbox::Budget;
    use crate::ring::{Receiver, Ring};
    use crate::subscribers::Subscribers;

    /// A shard without sockets, and the channels of its node.
    struct Rig {
        ring: Ring,
        receiver: Receiver,
        channels: Channels,
        connections: Connections,
        subscribers: Subscribers,
        budget: Rc<Budget>,
    }

    impl Rig {
        fn new() -> Self {
            let ring = Ring::new(1024, 1 << 20);
            let receiver = ring.subscribe();
            let channels = Channels::new(10);
            let (connections, subscribers, budget) = Default::default();
            Self { ring, receiver, channels, connections, subscribers, budget }
        }

        fn connect(&self) -> Rc<Connection> {
            self.connections
                .insert(0, |id| Connection::unidentified(id, Encoding::Centrifuge, Life::default()))
        }

        fn subscribe(&self, connection: &Rc<Connection>, name: &str) -> usize {
            let entered =
                self.channels.subscribe_with(name, Window::default(), |channel, state| {
                    (channel.id, state.sequence())
                });
            let (channel, since) = entered.unwrap();
            self.subscribers.insert(channel, connection, since)
        }

        fn publish(&self, name: &str, data: &str) {
            self.channels.with(name, |channel, state| {
                let publication = Publication::new(name.into(), data.to_owned().into());
                let sequence = state.take_sequence();
                let publication = Arc::new(publication);
                let post = Post { channel: channel.id, sequence, publication };
                self.ring.send(self.ring.reserve(0, None).unwrap(), Load::Post(post));
            });
        }

        fn turn(&mut self) -> Outcome {
            let mut batch = Batch::default();
            while let Some(entry) = self.receiver.try_recv() {
                batch.take(entry);
            }
            let Self { connections, subscribers, budget, .. } = &*self;
            let turn =
                Turn { shard: 0, connections, subscribers, budget, max_bytes: usize::MAX, now: 1 };
            turn.deliver(&batch)
        }
    }

    /// The data of the pushes that wait.
    fn take(connection: &Connection) -> Vec<String> {
        let mut outbox = connection.outbox.borrow_mut();
        let mut taken = String::new();
        while !outbox.is_empty() {
            taken.push_str(&String::from_utf8_lossy(outbox.front()));
            let length = outbox.front().len();
            outbox.advance(length);
        }
        let data = taken.split(r#""data":"#).skip(1);
        data.map(|rest| rest.split('}').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_is_ready_for_a_channel_becomes_one_piece_for_its_subscribers_alone() {
        let mut rig = Rig::new();
        let (a, b, c) = (rig.connect(), rig.connect(), rig.connect());
        for connection in [&a, &b] {
            rig.subscribe(connection, "news");
        }
        rig.subscribe(&c, "other");
        for data in ["1", "2"] {
            rig.publish("news", data);
            rig.publish("other", "0");
        }
        assert_eq!(rig.turn().deliveries, 6);
        assert_eq!(a.outbox.borrow().pieces(), 1);
        assert_eq!(take(&a), ["1", "2"]);
        assert_eq!(take(&b), ["1", "2"]);
        assert_eq!(take(&c), ["0", "0"]);
    }

    #[test]
    fn a_subscription_begins_where_it_was_made() {
        let mut rig = Rig::new();
        let (early, late) = (rig.connect(), rig.connect());
        rig.subscribe(&early, "news");
        rig.publish("news", "1");
        rig.subscribe(&late, "news");
        rig.publish("news", "2");
        assert_eq!(rig.turn().deliveries, 3);
        assert_eq!((take(&early).len(), take(&late)), (2, vec!["2".into()]));
    }

    #[test]
    fn who_unsubscribed_gets_no_more() {
        let mut rig = Rig::new();
        let (stays, goes) = (rig.connect(), rig.connect());
        rig.subscribe(&stays, "news");
        let slot = rig.subscribe(&goes, "news");
        rig.publish("news", "1");
        rig.turn();
        let channel = rig.channels.with("news", |channel, _| channel.clone()).unwrap();
        rig.subscribers.remove(channel.id, slot);
        rig.publish("news", "2");
        rig.turn();
        assert_eq!((take(&stays).len(), take(&goes)), (2, vec!["1".into()]));
    }

    #[test]
    fn a_missing_post_is_a_gap_and_nothing_after_it_is_given() {
        let mut rig = Rig::new();
        let a = rig.connect();
        rig.subscribe(&a, "news");
        rig.channels.with("news", |_, state| state.take_sequence());
        rig.publish("news", "2");
        let outcome = rig.turn();
        assert_eq!((outcome.gaps.len(), take(&a).len()), (1, 0));
    }
}
