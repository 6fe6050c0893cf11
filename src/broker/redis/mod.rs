//! Redis, or what speaks as it does, as the broker: topics by pub/sub, streams as its Streams.

mod connect;
mod error;
mod lease;
mod names;
mod presence;
mod script;
mod servers;

use std::fmt;

use ::redis::Value;
pub(super) use connect::Connector;
pub(super) use error::ConnectError;
use names::Names;
use script::Scripts;
use servers::{Routed, Servers};

use super::engine::{Failure, Fault, Read, Refusal, Stream, Watched};
use super::envelope;
use super::parcel::Parcel;
use super::queue::Remember;
use super::topic::Topic;
use crate::channel::history::Position;

/// Connections to one server, or to each of a cluster, for as long as all of them last.
pub(crate) struct Session {
    servers: Servers,
    names: Names,
    scripts: Scripts,
    /// What this node tells itself by, one for each server.
    pulses: Vec<Topic>,
}

impl Session {
    /// Publishes, all in order; says of each what became of it.
    pub(super) async fn publish(
        &self,
        parcels: &[Parcel<'_>],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        let commands = parcels.iter().map(|parcel| self.command(parcel)).collect();
        let answers = self.servers.publish(commands).await?;
        Ok(answers.into_iter().map(|answer| script::position(answer?)).collect())
    }

    /// What this node is to subscribe to, to hear itself.
    pub(super) fn pulses(&self) -> &[Topic] {
        &self.pulses
    }

    /// Fails if the user may not use what is of the prefix: else that would be told with every publish.
    async fn check_rights(&self, url: &str) -> Result<(), ConnectError> {
        let leases = self.names.leases();
        let mut commands = vec![Routed::new(&leases, "EXISTS").arg(&leases)];
        commands.extend(self.pulses.iter().map(|topic| self.say(topic, b"")));
        let answers = self.servers.all(commands).await;
        let refusal = match answers {
            Ok(answers) => answers.into_iter().find_map(Result::err).map(|it| it.to_string()),
            Err(failure) => Some(failure.to_string()),
        };
        refusal.map_or(Ok(()), |refusal| Err(ConnectError::said(url, &refusal)))
    }

    /// Tells itself something, by every server.
    pub(super) async fn pulse(&self, number: u64) -> Result<(), Failure> {
        let body = envelope::placeless(&envelope::pulse_body(number));
        let pulses = self.pulses.iter().map(|topic| self.say(topic, &body)).collect();
        self.servers.all(pulses).await.map(drop)
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        self.servers.subscribe(topics.iter().map(|topic| self.names.topic(topic)).collect()).await
    }

    pub(super) async fn unsubscribe(&self, topics: &[Topic]) -> Result<(), Failure> {
        self.servers.unsubscribe(topics.iter().map(|topic| self.names.topic(topic)).collect()).await
    }

    /// Reads streams.
    pub(super) async fn read(
        &self,
        reads: impl Iterator<Item = &Read>,
    ) -> Result<Vec<Result<Stream, Refusal>>, Failure> {
        let reads = reads.map(|read| self.scripts.read(&self.names, read)).collect();
        let answers = self.servers.all(reads).await?;
        Ok(answers.into_iter().map(|answer| script::stream(answer?)).collect())
    }

    /// Where streams stand; what is known of their channels is kept for longer.
    pub(super) async fn positions(
        &self,
        watched: &[Watched],
    ) -> Result<Vec<Result<Position, Refusal>>, Failure> {
        let calls =
            watched.iter().map(|watched| self.scripts.position(&self.names, watched)).collect();
        let answers = self.servers.all(calls).await?;
        Ok(answers.into_iter().map(|answer| script::position(answer?)).collect())
    }

    /// Has a channel's stream forget; its position stays.
    pub(crate) async fn clear(&self, channel: &str, topic: &Topic) -> Result<(), Fault> {
        let key = self.names.stream(channel);
        let forget = Routed::new(&key, "DEL").arg(&key);
        let tell = self.say(topic, &envelope::placeless(&envelope::clear_body()));
        let answers = self.servers.all(vec![forget, tell]).await?;
        Ok(answers.into_iter().try_for_each(|answer| answer.map(drop))?)
    }

    fn command(&self, Parcel { topic, body, remember, .. }: &Parcel<'_>) -> Routed {
        match remember {
            Some(remember) => {
                let by = (self.servers.publish_word(), self.names.topic(topic));
                self.scripts.publish(&self.names, by, body, remember)
            }
            None => self.say(topic, body),
        }
    }

    fn say(&self, topic: &Topic, payload: &[u8]) -> Routed {
        let topic = self.names.topic(topic);
        Routed::new(&topic, self.servers.publish_word()).arg(&topic).arg(payload)
    }

    /// Carries out one command.
    async fn one(&self, command: Routed) -> Result<Result<Value, Refusal>, Failure> {
        let mut answers = self.servers.all(vec![command]).await?;
        Ok(answers.pop().unwrap_or_else(|| Err(script::strange())))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("names", &self.names).finish_non_exhaustive()
    }
}
