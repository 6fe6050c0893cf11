//! HOT. What a channel's posts bring to streams of several channels, whose events each have an id of
//! their stream's own.
//!
//! # Cost
//!
//! Per event: one burst, which all such streams share. Per stream and event: its id as a text, and one
//! [`Outbox::push_begun`](crate::outbox::Outbox::push_begun) of both.

use std::rc::Rc;
use std::sync::Arc;

use super::{Outcome, Turn};
use crate::channel::ChannelId;
use crate::channel::post::Post;
use crate::channel::publication::Publication;
use crate::close::CloseReason;
use crate::outbox::{Burst, Push};
use crate::subscription::cursor::Cursor;
use crate::subscription::subscribers::Subscriber;

/// A publication as streams share it.
pub(super) struct Event {
    sequence: u64,
    offset: u64,
    burst: Rc<Burst>,
}

impl Turn<'_> {
    /// The publications among a channel's posts.
    pub(super) fn events(&self, posts: &[&Post]) -> Vec<Event> {
        let publications = posts
            .iter()
            .flat_map(|post| post.publications().iter().map(|it| (post.sequence, &it.publication)));
        let event = |(sequence, publication): (u64, &Arc<Publication>)| Event {
            sequence,
            offset: publication.offset,
            burst: Burst::lone(publication.event().bare.clone(), self.now, self.budget),
        };
        publications.map(event).collect()
    }

    /// Puts a channel's events into a stream's outbox, each whole with its id.
    pub(super) fn post_to_stream(
        &self,
        channel: ChannelId,
        events: &[Event],
        subscriber: &Subscriber,
        cursor: &Cursor,
        outcome: &mut Outcome,
    ) {
        let Subscriber { connection, since, .. } = subscriber;
        let mut outbox = connection.outbox.borrow_mut();
        for event in events.iter().filter(|event| event.sequence > *since) {
            let rest = &event.burst;
            let push = if event.offset == 0 {
                outbox.push(rest, 0, rest.len(), self.max_bytes)
            } else {
                let id = cursor.advance(channel, event.offset);
                let begin = Burst::begin(id.into(), self.now, self.budget);
                outbox.push_begun(&begin, rest, self.max_bytes)
            };
            match push {
                Push::Queued => outcome.deliveries += 1,
                Push::Full => {
                    outcome.closes.push((connection.clone(), CloseReason::SLOW));
                    return;
                }
                Push::Closing => return,
            }
        }
    }
}
