//! Publishes that go to the broker as one, so that a busy topic costs it and all who hear it less.

use std::iter::repeat_n;

use bytes::Bytes;

use super::envelope;
use super::queue::{Outgoing, Remember};
use super::topic::Topic;
use crate::hub::Inner;
use crate::ring::Audience;

/// A publish, or several that follow each other to one topic. What is remembered goes alone: each has a
/// position of its own.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    pub(super) topic: &'a Topic,
    /// As the topic carries it, unless something is to be remembered: then the broker gives it a position first.
    pub(super) body: Bytes,
    pub(super) remember: Option<&'a Remember>,
    audience: Audience,
    publishes: usize,
}

impl Parcel<'_> {
    /// How many connections of this node it is for.
    pub(super) fn reach(&self, hub: &Inner) -> usize {
        match self.topic {
            Topic::All => hub.reach(self.audience),
            Topic::Channel(name) => hub.subscribers(name),
            Topic::User(user) => hub.user_connections(user),
            Topic::Node(_) | Topic::Pulse(_) => 0,
        }
    }
}

/// Packs publishes in their order.
pub(super) fn pack<'a>(publishes: impl Iterator<Item = &'a Outgoing>) -> Vec<Parcel<'a>> {
    let publishes: Vec<_> = publishes.collect();
    let mut bytes = 0;
    let goes_with = |one: &&Outgoing, next: &&Outgoing| {
        bytes += one.body.len();
        let fits = bytes + next.body.len() <= MAX_BYTES;
        let is_alike = one.topic == next.topic && one.audience == next.audience;
        let goes_with = fits && is_alike && one.remember.is_none() && next.remember.is_none();
        if !goes_with {
            bytes = 0;
        }
        goes_with
    };
    publishes.chunk_by(goes_with).filter_map(parcel).collect()
}

/// What became of each publish, as of its parcel.
pub(super) fn unpack<T: Clone>(parcels: &[Parcel<'_>], answers: Vec<T>) -> Vec<T> {
    let of_each = |(parcel, answer): (&Parcel<'_>, T)| repeat_n(answer, parcel.publishes);
    parcels.iter().zip(answers).flat_map(of_each).collect()
}

fn parcel<'a>(publishes: &[&'a Outgoing]) -> Option<Parcel<'a>> {
    let Outgoing { topic, remember, audience, .. } = publishes.first()?;
    let mut bodies = publishes.iter().map(|publish| &publish.body);
    let body = match remember {
        Some(_) => bodies.next()?.clone(),
        None => envelope::placeless_together(bodies),
    };
    let (remember, audience, publishes) = (remember.as_ref(), *audience, publishes.len());
    Some(Parcel { topic, body, remember, audience, publishes })
}

/// Bytes that go together: as many as make what is sent once small beside them.
pub(super) const MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::history::Window;

    fn publish(topic: Topic, size: usize, key: Option<&str>) -> Outgoing {
        let remember = Remember::new("a", Window::default(), key);
        Outgoing { topic, body: vec![b'x'; size].into(), remember, audience: Audience::Chat }
    }

    #[test]
    fn what_is_of_one_topic_goes_together_up_to_a_size_and_what_is_remembered_alone() {
        let channel = || Topic::Channel("a".into());
        let publishes = [
            publish(Topic::All, 1, None),
            publish(channel(), 1, None),
            publish(channel(), 2, None),
            publish(channel(), 3, Some("key")),
            publish(channel(), MAX_BYTES - 1, None),
            publish(channel(), 1, None),
            publish(channel(), 1, None),
            publish(channel(), MAX_BYTES + 1, None),
        ];
        let parcels = pack(publishes.iter());
        let counts: Vec<_> = parcels.iter().map(|parcel| parcel.publishes).collect();
        assert_eq!(counts, [1, 2, 1, 2, 1, 1]);
        let answers = unpack(&parcels, vec!['a', 'b', 'c', 'd', 'e', 'f']);
        assert_eq!(answers, ['a', 'b', 'b', 'c', 'd', 'd', 'e', 'f']);
    }
}
