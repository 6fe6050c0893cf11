//! Publishes that go to the broker as one, so that a busy topic costs it and all who hear it less.

use std::iter::repeat_n;

use bytes::Bytes;

use super::envelope;
use super::queue::{Remember, Request};
use super::topic::Topic;

/// A publish, or several that follow each other to one topic. What is remembered goes alone: each has a
/// place of its own.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    pub(super) topic: &'a Topic,
    pub(super) body: Bytes,
    pub(super) remember: Option<&'a Remember>,
    publishes: usize,
}

/// Packs publishes in their order.
pub(super) fn pack(requests: &[Request]) -> Vec<Parcel<'_>> {
    let mut bytes = 0;
    let is_together = |one: &Request, next: &Request| {
        bytes += one.outgoing.body.len();
        let fits = bytes + next.outgoing.body.len() <= MAX_BYTES;
        let is_together = fits && goes_with(one, next);
        if !is_together {
            bytes = 0;
        }
        is_together
    };
    requests.chunk_by(is_together).map(parcel).collect()
}

/// What became of each publish, as of its parcel.
pub(super) fn unpack<T: Clone>(parcels: &[Parcel<'_>], answers: Vec<T>) -> Vec<T> {
    let of_each = |(parcel, answer): (&Parcel<'_>, T)| repeat_n(answer, parcel.publishes);
    parcels.iter().zip(answers).flat_map(of_each).collect()
}

fn goes_with(one: &Request, next: &Request) -> bool {
    let (one, next) = (&one.outgoing, &next.outgoing);
    one.remember.is_none() && next.remember.is_none() && one.topic == next.topic
}

fn parcel(requests: &[Request]) -> Parcel<'_> {
    let [first, ..] = requests else { unreachable!("a chunk has at least one") };
    let bodies = requests.iter().map(|request| &request.outgoing.body);
    Parcel {
        topic: &first.outgoing.topic,
        body: envelope::several_body(bodies),
        remember: first.outgoing.remember.as_ref(),
        publishes: requests.len(),
    }
}

/// Bytes that go together: as many as make what is sent once small beside them.
pub(super) const MAX_BYTES: usize = 64 << 10;
