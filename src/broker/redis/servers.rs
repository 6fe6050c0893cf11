//! The servers of a session: one, or the primaries of a cluster, each with two connections. Keys and topics
//! are spread over them by slots (Redis Cluster specification, "Key distribution model").

use std::sync::{Arc, Mutex};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisError, ToRedisArgs, Value, cmd};
use crc16::{State, XMODEM};
use futures_util::future::try_join_all;

use super::error::ends_session;
use crate::broker::engine::{Failure, Refusal};
use crate::broker::feed::Inlet;
use crate::lock::lock;

/// A command, and the slot that it is about.
#[derive(Debug)]
pub(super) struct Routed {
    command: Cmd,
    slot: u16,
}

/// All servers of a session.
pub(super) struct Servers {
    servers: Vec<Server>,
    /// Which server has which slot; empty if there is one server.
    slots: Vec<u16>,
    inlet: Arc<Inlet>,
    /// Topics that are being left: word that they are is no surprise.
    leaving: Leaving,
}

/// A server's connections.
pub(super) struct Server {
    /// For commands, whose answers may be large: what has subscriptions may be sent only so much.
    pub(super) commands: MultiplexedConnection,
    /// That hears, and publishes: so the answer to a publish comes with what it brings, and wakes this node once.
    pub(super) hearing: MultiplexedConnection,
}

/// Names of topics that are being left.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving(Arc<Mutex<Vec<String>>>);

impl Routed {
    /// A command about a key or a topic of that name.
    pub(super) fn new(name: &str, word: &str) -> Self {
        Self { command: cmd(word), slot: slot(name) }
    }

    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }
}

impl Leaving {
    /// Whether a topic was left that this node did not want to leave.
    pub(super) fn is_surprise(&self, name: &[u8]) -> bool {
        let mut leaving = lock(&self.0);
        let index = leaving.iter().position(|leaving| leaving.as_bytes() == name);
        index.map(|index| leaving.swap_remove(index)).is_none()
    }

    fn add(&self, names: &[String]) {
        lock(&self.0).extend_from_slice(names);
    }
}

impl Servers {
    pub(super) fn new(
        servers: Vec<Server>,
        slots: Vec<u16>,
        inlet: Arc<Inlet>,
        leaving: Leaving,
    ) -> Self {
        Self { servers, slots, inlet, leaving }
    }

    pub(super) fn publish_word(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// For each server the number of a tag whose slot it has, so that all of them can be told something.
    pub(super) fn tags(&self, name: impl Fn(u32) -> String) -> Vec<u32> {
        let of_server = |server| (0..).find(|tag| self.server_of(slot(&name(*tag))) == server);
        (0..self.servers.len()).filter_map(of_server).collect()
    }

    /// Carries out commands, those of each server one after the other; answers in their order.
    pub(super) async fn all(
        &self,
        commands: Vec<Routed>,
    ) -> Result<Vec<Result<Value, Refusal>>, Failure> {
        self.each(|server| &server.commands, commands).await
    }

    /// The same of publishes.
    pub(super) async fn publish(
        &self,
        publishes: Vec<Routed>,
    ) -> Result<Vec<Result<Value, Refusal>>, Failure> {
        self.each(|server| &server.hearing, publishes).await
    }

    async fn each(
        &self,
        by: impl Fn(&Server) -> &MultiplexedConnection,
        commands: Vec<Routed>,
    ) -> Result<Vec<Result<Value, Refusal>>, Failure> {
        if let [server] = &self.servers[..] {
            return self.on(by(server), commands).await;
        }
        let mut answers: Vec<_> = commands.iter().map(|_| None).collect();
        let mut batches: Vec<(Vec<usize>, Vec<Routed>)> = Vec::new();
        batches.resize_with(self.servers.len(), Default::default);
        for (index, command) in commands.into_iter().enumerate() {
            let (indices, commands) = &mut batches[self.server_of(command.slot)];
            indices.push(index);
            commands.push(command);
        }
        let done = self.servers.iter().zip(batches).map(async |(server, (indices, commands))| {
            Ok::<_, Failure>((indices, self.on(by(server), commands).await?))
        });
        for (indices, done) in try_join_all(done).await? {
            for (index, answer) in indices.into_iter().zip(done) {
                answers[index] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The same on one server.
    async fn on(
        &self,
        connection: &MultiplexedConnection,
        commands: Vec<Routed>,
    ) -> Result<Vec<Result<Value, Refusal>>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for Routed { command, .. } in commands {
            pipeline.add_command(command);
        }
        pipeline.ignore_errors();
        let answers: Vec<Result<Value, RedisError>> =
            pipeline.query_async(&mut connection.clone()).await?;
        let answers = answers.into_iter();
        Ok(answers.map(|answer| answer.map_err(|error| self.refuse(&error))).collect())
    }

    pub(super) async fn subscribe(&self, names: Vec<String>) -> Result<(), Failure> {
        if !self.is_cluster() {
            return Ok(self.servers[0].hearing.clone().subscribe(names).await?);
        }
        self.hear("SSUBSCRIBE", names).await
    }

    pub(super) async fn unsubscribe(&self, names: Vec<String>) -> Result<(), Failure> {
        if !self.is_cluster() {
            return Ok(self.servers[0].hearing.clone().unsubscribe(names).await?);
        }
        self.leaving.add(&names);
        self.hear("SUNSUBSCRIBE", names).await
    }

    /// One command a topic, as each is confirmed by one answer and may be of another slot.
    async fn hear(&self, word: &str, names: Vec<String>) -> Result<(), Failure> {
        let mut pipelines = vec![Pipeline::new(); self.servers.len()];
        for name in names {
            pipelines[self.server_of(slot(&name))].cmd(word).arg(name);
        }
        let pipelines = self.servers.iter().zip(pipelines).filter(|(_, it)| !it.is_empty());
        let done = pipelines.map(async |(server, pipeline)| {
            pipeline.query_async::<Vec<Value>>(&mut server.hearing.clone()).await
        });
        try_join_all(done).await?;
        Ok(())
    }

    fn is_cluster(&self) -> bool {
        !self.slots.is_empty()
    }

    fn server_of(&self, slot: u16) -> usize {
        self.slots.get(usize::from(slot)).map_or(0, |server| usize::from(*server))
    }

    /// What a refusal says; one that says that this server is not the right one ends the session.
    fn refuse(&self, error: &RedisError) -> Refusal {
        if ends_session(error) {
            self.inlet.end(error.to_string());
        }
        Refusal::new(error.to_string())
    }
}

/// The slot of a name: of what stands in its first braces, if anything does.
fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(name);
    State::<XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    /// The first from the specification of Redis Cluster, the others as CLUSTER KEYSLOT has them.
    #[test]
    fn a_name_has_the_slot_of_its_tag() {
        assert_eq!(slot("123456789"), 12_739);
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), State::<XMODEM>::calculate(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn a_topic_that_is_left_on_purpose_is_no_surprise_once() {
        let leaving = Leaving::default();
        leaving.add(&["a".to_owned()]);
        assert!(!leaving.is_surprise(b"a") && leaving.is_surprise(b"a"));
    }
}
