//! NATS as the broker: topics are its subjects, and what is kept is kept by JetStream.

mod clock;
mod connect;
mod dial;
mod error;
mod hear;
mod history;
mod jetstream;
mod lease;
mod names;
mod presence;
mod streams;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clock::Clock;
pub(super) use connect::{ConnectError, Connector};
use error::JetStreamError;
use futures_util::future::try_join_all;
use hear::Hearing;
use history::Heads;
use jetstream::JetStream;
use lease::OwnLease;
use names::{Names, Store};

use super::engine::{Failure, Refusal};
use super::envelope;
use super::parcel::Parcel;
use super::queue::Remember;
use super::topic::Topic;
use crate::channel::history::Position;

/// Two connections to one server, one that hears and by which is published, and one for what else is asked,
/// for as long as both last.
pub(crate) struct Session {
    hearing: Hearing,
    jetstream: JetStream,
    names: Names,
    heads: Heads,
    clock: Clock,
    hold: OwnLease,
    /// Whether a stream was found gone, for which it is all begun anew.
    lacks_stream: AtomicBool,
}

impl Session {
    /// Publishes, all of a topic in order; says of each what became of it.
    pub(super) async fn publish(
        &self,
        parcels: &[Parcel<'_>],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        // What is for everyone or for users is in one order too.
        let mut lanes = HashMap::<Option<&str>, Vec<usize>>::new();
        for (index, parcel) in parcels.iter().enumerate() {
            let lane = match parcel.topic {
                Topic::Channel(channel) => Some(&**channel),
                _ => None,
            };
            lanes.entry(lane).or_default().push(index);
        }
        let begun = Instant::now();
        let lanes = lanes.into_values().map(async |lane| {
            let mut answers = Vec::with_capacity(lane.len());
            for index in lane {
                // Other topics wait for the slowest.
                let answer = if begun.elapsed() < PATIENCE {
                    self.publish_one(&parcels[index]).await?
                } else {
                    Err(Refusal::new("what was published before it took too long"))
                };
                answers.push((index, answer));
            }
            Ok::<_, Failure>(answers)
        });
        let mut answers: Vec<_> = try_join_all(lanes).await?.into_iter().flatten().collect();
        if parcels.iter().any(|parcel| parcel.remember.is_none()) {
            self.hearing.flush().await?;
        }
        answers.sort_unstable_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// What this node is to subscribe to, to hear itself.
    pub(super) fn pulses(&self) -> &[Topic] {
        &PULSES
    }

    /// Tells itself something.
    pub(super) async fn pulse(&self, number: u64) -> Result<(), Failure> {
        self.check_streams()?;
        for topic in &PULSES {
            let body = envelope::placeless(&envelope::pulse_body(number));
            self.tell(topic, body)?;
        }
        Ok(())
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        let topics = topics.iter().map(|topic| (topic.clone(), self.names.topic(topic)));
        Ok(self.hearing.subscribe(topics.collect()).await?)
    }

    pub(super) async fn unsubscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        self.hearing.unsubscribe(topics.to_vec());
        Ok(())
    }

    async fn publish_one(
        &self,
        Parcel { topic, body, remember, .. }: &Parcel<'_>,
    ) -> Result<Result<Position, Refusal>, Failure> {
        let key = remember.and_then(|it| it.key.as_deref().map(|key| (&it.channel, key)));
        let id = key.map(|(channel, key)| names::message_id(channel, key));
        let published = match remember.map(store_of) {
            Some(Store::History) => {
                self.append(self.names.stored(Store::History, topic), body, id.as_deref()).await
            }
            Some(store) => {
                let (subject, body) = (self.names.stored(store, topic), envelope::placeless(body));
                let stored = self.jetstream.put(subject, None, id.as_deref(), body).await;
                stored.map(|_| Position::default())
            }
            None => self.tell(topic, body.clone()).map(|()| Position::default()),
        };
        self.settle(published)
    }

    /// Sends what is not stored; that it came is not known before the connection is flushed.
    fn tell(&self, topic: &Topic, payload: Bytes) -> Result<(), JetStreamError> {
        self.hearing.publish(self.names.topic(topic), payload)
    }

    /// The next session makes streams again that are gone.
    fn check_streams(&self) -> Result<(), Failure> {
        if self.lacks_stream.load(Ordering::Relaxed) {
            return Err(JetStreamError::NoStream.into());
        }
        Ok(())
    }

    /// What follows for what was asked: it is refused, unless nothing is known of it.
    fn settle<T>(&self, done: Result<T, JetStreamError>) -> Result<Result<T, Refusal>, Failure> {
        done.map_or_else(|error| self.refuse(error).map(Err), |done| Ok(Ok(done)))
    }

    /// What follows for one publish or change.
    fn refuse(&self, error: JetStreamError) -> Result<Refusal, Failure> {
        if matches!(error, JetStreamError::NoStream) {
            self.lacks_stream.store(true, Ordering::Relaxed);
        }
        error.refusal()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What stores a publish that something is to be remembered of.
fn store_of(remember: &Remember) -> Store {
    if remember.window.is_open() { Store::History } else { Store::Keys }
}

/// One is enough, as a node has one server.
const PULSES: [Topic; 1] = [Topic::Pulse(0)];

/// How long coming in may take, and each request.
const PATIENCE: Duration = Duration::from_secs(3);
