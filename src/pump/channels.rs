//! HOT. What a batch brings to the subscribers of channels.
//!
//! # Cost
//!
//! Per channel and turn: one look-up, and one burst for each encoding that someone there has,
//! however many subscribers. Per subscriber and turn: one
//! [`Outbox::push`](crate::outbox::Outbox::push), on a cell of this thread.

use std::rc::Rc;

use bytes::Bytes;

use super::{Batch, Outcome, Turn};
use crate::channel::post::Post;
use crate::close::CloseReason;
use crate::message::Encoding;
use crate::outbox::{Burst, Push};
use crate::ring::Load;
use crate::subscription::subscribers::{OfChannel, Subscriber};

impl Turn<'_> {
    /// Puts a batch's posts into the outboxes, each channel's in one burst.
    pub(super) fn post(&self, batch: &Batch, outcome: &mut Outcome) {
        let posts = batch.entries.iter().filter_map(|entry| match &entry.load {
            Load::Broadcast(_, _, post) => post.as_ref(),
            Load::Post(post) => Some(post),
            Load::Close(..) | Load::Order(..) | Load::Probe(_) | Load::Unicast(..) => None,
        });
        let mut posts: Vec<&Post> = posts.collect();
        // Stable, so each channel's posts keep their order; between channels none is promised.
        posts.sort_by_key(|post| post.channel);
        let of_channels = self.subscribers.of_channels();
        // All are looked up before any is pushed to, so that what the caches lack is waited for at once.
        let found = posts.chunk_by(|a, b| a.channel == b.channel).filter_map(|posts| {
            let of_channel = of_channels.get(&posts[0].channel)?;
            of_channel.fetch();
            Some((posts, of_channel))
        });
        for (posts, of_channel) in found.collect::<Vec<_>>() {
            self.post_to(posts, of_channel, outcome);
        }
    }

    fn join_posts<'p>(
        &self,
        posts: &[&Post],
        frames: impl Iterator<Item = &'p Bytes>,
    ) -> Option<Rc<Burst>> {
        let most = posts.iter().map(|post| post.count()).sum();
        self.join(frames, most, posts.iter().map(|post| post.len()).sum())
    }

    /// One channel's posts to its subscribers.
    fn post_to(&self, posts: &[&Post], of_channel: &OfChannel, outcome: &mut Outcome) {
        let first = posts[0].sequence;
        let is_whole = posts.iter().enumerate().all(|(i, post)| post.sequence == first + i as u64);
        let has_gap = !of_channel.see(first, first + posts.len() as u64 - 1) || !is_whole;
        outcome.gapped += u64::from(has_gap);
        let mut bursts = [const { None }; Encoding::ALL.len() * 2];
        let mut events = None;
        for subscriber in of_channel.iter() {
            let Subscriber { connection, since, hears_join_leave, is_positioned } = subscriber;
            if has_gap && *is_positioned {
                outcome.gaps.push((connection.clone(), posts[0].channel));
                continue;
            }
            if let Some(cursor) = connection.cursor.get() {
                let events = events.get_or_insert_with(|| self.events(posts));
                self.post_to_stream(posts[0].channel, events, subscriber, cursor, outcome);
                continue;
            }
            let (encoding, hears) = (connection.encoding, *hears_join_leave);
            let frames = |posts| frames(posts, encoding, hears);
            let burst =
                bursts[encoding as usize * 2 + usize::from(hears)].get_or_insert_with(|| {
                    let burst = self.join_posts(posts, frames(posts));
                    burst.map(|burst| (burst.frames_from(0), burst))
                });
            let Some((count, burst)) = burst else { continue };
            // None but for who subscribed while these were under way.
            let had = (since + 1).saturating_sub(first).min(posts.len() as u64) as usize;
            let had = if had == 0 { 0 } else { frames(&posts[..had]).count() };
            let start = burst.frame_start(had);
            if start >= burst.len() {
                continue;
            }
            match connection.outbox.borrow_mut().push(burst, start, burst.len(), self.max_bytes) {
                Push::Queued => outcome.deliveries += (*count - had) as u64,
                Push::Full => outcome.closes.push((connection.clone(), CloseReason::SLOW)),
                Push::Closing => {}
            }
        }
    }
}

/// What there is for a subscriber in a channel's posts.
fn frames<'p>(
    posts: &'p [&Post],
    encoding: Encoding,
    hears_join_leave: bool,
) -> impl Iterator<Item = &'p Bytes> {
    posts.iter().flat_map(move |post| post.frames(encoding, hears_join_leave))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::*;
    use crate::channel::history::{Position, Window};
    use crate::channel::post::{Announcement, Change, Content};
    use crate::channel::publication::Publication;
    use crate::channel::{Channels, TooManyChannels};
    use crate::connection::{Connection, Connections, Life};
    use crate::outbox::Budget;
    use crate::protocol::centrifuge::ClientInfo;
    use crate::ring::{Receiver, Ring};
    use crate::subscription::cursor::Cursor;
    use crate::subscription::subscribers::Subscribers;

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
            let channels = Channels::new(10, 0);
            let (connections, subscribers, budget) = Default::default();
            Self { ring, receiver, channels, connections, subscribers, budget }
        }

        fn connect(&self) -> Rc<Connection> {
            self.connections
                .insert(0, |id| Connection::unidentified(id, Encoding::Centrifuge, Life::default()))
        }

        fn subscribe(&self, connection: &Rc<Connection>, name: &str) -> usize {
            self.subscribe_as(connection, name, |_| {})
        }

        fn subscribe_as(
            &self,
            connection: &Rc<Connection>,
            name: &str,
            set: impl FnOnce(&mut Subscriber),
        ) -> usize {
            let entered =
                self.channels.subscribe_with(name, Window::default(), |channel, state| {
                    Ok::<_, TooManyChannels>((channel.id, state.sequence()))
                });
            let (channel, since) = entered.unwrap();
            let mut subscriber = Subscriber {
                connection: connection.clone(),
                since,
                hears_join_leave: false,
                is_positioned: true,
            };
            set(&mut subscriber);
            self.subscribers.insert(channel, subscriber)
        }

        fn publish(&self, name: &str, data: &str) {
            let publication = Publication::new(data.to_owned().into());
            let publication = publication.at(&name.into(), Position::default());
            self.post(name, Content::from(Arc::new(publication)));
        }

        fn publish_at(&self, name: &str, offset: u64) {
            let position = Position { offset, epoch: "f".into() };
            let publication = Publication::new("1".into()).at(&name.into(), position);
            self.post(name, Content::from(Arc::new(publication)));
        }

        fn join(&self, name: &str) {
            let info = ClientInfo {
                user: "42".into(),
                client: "c".into(),
                conn_info: RawValue::from_string("{\"data\":0}".into()).ok(),
                chan_info: None,
            };
            let announcement = Announcement::new(name.into(), Change::Join, Arc::new(info));
            self.post(name, Content::Announcement(Arc::new(announcement)));
        }

        fn post(&self, name: &str, content: Content) {
            self.channels.with(name, |channel, state| {
                let post = Post { channel: channel.id, sequence: state.take_sequence(), content };
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

    /// All that waits.
    fn written(connection: &Connection) -> String {
        let mut outbox = connection.outbox.borrow_mut();
        let mut taken = String::new();
        while !outbox.is_empty() {
            taken.push_str(&String::from_utf8_lossy(outbox.front()));
            let length = outbox.front().len();
            outbox.advance(length);
        }
        taken
    }

    /// The data of the pushes that wait.
    fn take(connection: &Connection) -> Vec<String> {
        let taken = written(connection);
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
    fn publications_that_came_together_are_delivered_each_and_to_a_subscription_all_or_none() {
        let mut rig = Rig::new();
        let (early, late) = (rig.connect(), rig.connect());
        let together = |all: [&'static str; 2]| {
            let publication = |data: &'static str| Arc::new(Publication::new(data.into())).into();
            Content::Publications(all.map(publication).into())
        };
        rig.subscribe(&early, "news");
        rig.publish("news", "0");
        rig.post("news", together(["1", "2"]));
        rig.subscribe(&late, "news");
        rig.post("news", together(["3", "4"]));
        assert_eq!(rig.turn().deliveries, 7);
        assert_eq!(take(&early), ["0", "1", "2", "3", "4"]);
        assert_eq!(take(&late), ["3", "4"]);
        let stream = rig
            .connections
            .insert(0, |id| Connection::unidentified(id, Encoding::Sse, Life::default()));
        stream.cursor.get_or_init(|| Box::new(Cursor::new([None, None])));
        rig.subscribe(&stream, "news");
        rig.post("news", together(["5", "6"]));
        assert_eq!(rig.turn().deliveries, 2 + 2 + 2);
        assert_eq!(written(&stream).matches("data: ").count(), 2);
    }

    #[test]
    fn a_turn_ends_by_publications_however_many_come_together() {
        let mut rig = Rig::new();
        rig.subscribe(&rig.connect(), "news");
        for _ in 0..20 {
            let publication = || Arc::new(Publication::new("1".into())).into();
            let together = Vec::from_iter(std::iter::repeat_with(publication).take(200));
            rig.post("news", Content::Publications(together));
        }
        let mut batch = Batch::default();
        while !batch.is_full() {
            batch.take(rig.receiver.try_recv().unwrap());
        }
        assert_eq!(batch.entries.len(), 6);
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
    fn a_stream_of_several_channels_gets_each_event_with_an_id_of_its_own() {
        let mut rig = Rig::new();
        let stream = || {
            let stream = rig
                .connections
                .insert(0, |id| Connection::unidentified(id, Encoding::Sse, Life::default()));
            let position = |epoch: &str| Some(Position { offset: 0, epoch: epoch.into() });
            let cursor = Cursor::new([position("e"), position("f")]);
            stream.cursor.get_or_init(|| Box::new(cursor));
            stream
        };
        let (early, late) = (stream(), stream());
        let enter = |stream: &Rc<Connection>| {
            rig.subscribe(stream, "news");
            let id = rig.channels.with("news", |channel, _| channel.id).unwrap();
            stream.cursor.get().unwrap().enter(1, id);
        };
        enter(&early);
        rig.publish_at("news", 1);
        rig.publish_at("news", 2);
        enter(&late);
        rig.publish_at("news", 3);
        assert_eq!(rig.turn().deliveries, 3 + 1);
        let ids = |stream: &Connection| {
            let text = written(stream);
            let lines = text.lines().filter_map(|line| line.strip_prefix("id: "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ids(&early), ["e:0,f:1", "e:0,f:2", "e:0,f:3"]);
        assert_eq!(ids(&late), ["e:0,f:3"]);
        assert_eq!(rig.budget.used(), 0);
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
    fn joins_are_for_those_who_hear_of_them() {
        let mut rig = Rig::new();
        let (hears, deaf, late) = (rig.connect(), rig.connect(), rig.connect());
        rig.subscribe_as(&hears, "news", |subscriber| subscriber.hears_join_leave = true);
        rig.subscribe(&deaf, "news");
        rig.publish("news", "1");
        rig.join("news");
        rig.subscribe(&late, "news");
        rig.join("news");
        rig.publish("news", "2");
        assert_eq!(rig.turn().deliveries, 4 + 2 + 1);
        assert_eq!(take(&hears), ["1", "0", "0", "2"]);
        assert_eq!((take(&deaf).len(), take(&late)), (2, vec!["2".into()]));
    }

    #[test]
    fn after_a_missing_post_those_who_count_on_it_are_told_and_given_nothing() {
        let mut rig = Rig::new();
        let (positioned, loose) = (rig.connect(), rig.connect());
        rig.subscribe(&positioned, "news");
        rig.subscribe_as(&loose, "news", |subscriber| subscriber.is_positioned = false);
        rig.channels.with("news", |_, state| state.take_sequence());
        rig.publish("news", "2");
        let outcome = rig.turn();
        assert_eq!((outcome.gaps.len(), outcome.gapped), (1, 1));
        assert!(Rc::ptr_eq(&outcome.gaps[0].0, &positioned));
        assert_eq!((take(&positioned).len(), take(&loose).len()), (0, 1));
    }
}
