//! A backend that tries each publish, at one node after the other, until it is accepted.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, sleep, timeout};

use crate::channels::Channels;
use crate::clock::{Clock, Timer};
use crate::counts::{Tallies, count};
use crate::dice::Dice;
use crate::failure::Failure;
use crate::mark::Mark;
use crate::nodes::Nodes;
use crate::publisher::Sent;
use crate::responses::Responses;
use crate::schedule::Schedule;
use crate::target::Target;

/// What a backend publishes, and where.
#[derive(Clone, Debug)]
pub(crate) struct Insistence {
    pub(crate) nodes: Nodes,
    pub(crate) channels: Channels,
    pub(crate) key: String,
    /// Bytes of a body.
    pub(crate) size: usize,
    /// Publishes that had to be tried again, by why.
    pub(crate) retries: Rc<Tallies<String>>,
}

/// Publishes to each channel in turn, each to any node, and the next once one is accepted: so they have an
/// order, whichever nodes they go to.
#[derive(Debug)]
pub(crate) struct Insistent {
    terms: Insistence,
    number: u16,
    /// To the nodes to which there is one.
    connections: BTreeMap<usize, Connection>,
    dice: Dice,
    sent: Rc<Sent>,
}

/// A connection to a node's API.
#[derive(Debug)]
struct Connection {
    half: OwnedWriteHalf,
    responses: Responses,
}

impl Insistent {
    pub(crate) fn new(terms: Insistence, number: u16) -> Self {
        let (connections, dice) = (BTreeMap::new(), Dice::new(number.into()));
        Self { terms, number, connections, dice, sent: Rc::default() }
    }

    /// What was accepted of it, kept up to date.
    pub(crate) fn sent(&self) -> Rc<Sent> {
        self.sent.clone()
    }

    /// Publishes what the schedule says, however late; fails if something is accepted nowhere.
    pub(crate) async fn run(mut self, mut schedule: Schedule, clock: Clock) -> Result<(), Failure> {
        let mut timer = Timer::new(clock)?;
        while let Some(next) = schedule.next(clock.now()) {
            timer.until(next).await?;
            let Some(due) = schedule.take(clock.now()) else { continue };
            let sequence = self.sent.count.get() as u32;
            self.publish(Mark { publisher: self.number, sequence, due }).await?;
            self.sent.count.set(u64::from(sequence) + 1);
        }
        Ok(())
    }

    async fn publish(&mut self, mark: Mark) -> Result<(), Failure> {
        let command = self.command(mark);
        let deadline = Instant::now() + PATIENCE;
        while let Err(why) = self.attempt(&command).await {
            if Instant::now() > deadline {
                let text = format!("no node accepts a publish within 60 s, at last: {why}");
                return Err(Failure::Run(text));
            }
            count(&self.terms.retries, why);
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Under a key of its own, so that it is published once however often it is tried.
    fn command(&self, mark: Mark) -> String {
        let Mark { publisher, sequence, .. } = mark;
        let channel = Channels::name(self.terms.channels.turn(sequence));
        let mut body = vec![b'.'; self.terms.size];
        mark.write(&mut body);
        let body = String::from_utf8_lossy(&body);
        format!(
            r#"{{"channel":"{channel}","idempotency_key":"{publisher}-{sequence}","data":{{"body":"{body}"}}}}"#
        )
    }

    /// Tries it at any node, even one that is down; why it was not accepted.
    async fn attempt(&mut self, command: &str) -> Result<(), String> {
        let host = self.terms.nodes.any(&mut self.dice);
        let target = self.terms.nodes.target(host);
        let (address, key) = (target.address(), &self.terms.key);
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\n\
             content-length: {}\r\n\r\n{command}",
            command.len()
        );
        // Put back only if it answers.
        let before = self.connections.remove(&host.node);
        let user = self.number.into();
        let asking = Connection::ask(before, target, user, request.as_bytes());
        let answered = timeout(PATIENCE_EACH, asking).await;
        let answered = answered.map_err(|_| "no answer within 10 s".to_owned())?;
        let (connection, status, body) = answered.map_err(|error| error.kind().to_string())?;
        self.connections.insert(host.node, connection);
        judge(status, &body)
    }
}

impl Connection {
    /// Asks over a connection, or a new one if there is none.
    async fn ask(
        before: Option<Self>,
        target: &Target,
        user: u32,
        request: &[u8],
    ) -> io::Result<(Self, u16, Vec<u8>)> {
        let mut connection = match before {
            Some(connection) => connection,
            None => {
                let (read, half) = target.dial(user).await?.into_split();
                Self { half, responses: Responses::new(read) }
            }
        };
        connection.half.write_all(request).await?;
        let (status, body) = connection.responses.next().await?;
        Ok((connection, status, body.to_vec()))
    }
}

/// Only a `result` says that a publish is accepted.
fn judge(status: u16, body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Refused {
        error: Refusal,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: u32,
    }
    if status == 200 && body.starts_with(br#"{"result""#) {
        return Ok(());
    }
    Err(match serde_json::from_slice(body) {
        Ok(Refused { error: Refusal { code } }) => format!("error {code}"),
        Err(_) => format!("status {status}"),
    })
}

/// How long a publish is tried; a broker that was killed is back long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one answer may take: more than the server's broker.timeout.
const PATIENCE_EACH: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::task::{JoinHandle, spawn_local};

    use super::*;
    use crate::schedule::Rate;

    /// A node that answers the first request of each connection so, and then closes it; the commands it got.
    async fn node(answers: &'static [&'static str]) -> (Target, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::floor(listener.local_addr().unwrap());
        let serving = spawn_local(async move {
            let mut commands = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8(request[..length].to_vec()).unwrap();
                commands.push(request.split_once("\r\n\r\n").unwrap().1.to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            commands
        });
        (target, serving)
    }

    #[tokio::test(flavor = "local")]
    async fn a_publish_is_tried_under_one_key_until_it_has_a_result() {
        let (target, serving) = node(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"error\"",
            "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"error\":{\"code\":100}}",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}",
        ])
        .await;
        let terms = Insistence {
            nodes: Nodes::new([target]),
            channels: Channels::new(2, 1).unwrap(),
            key: "key".to_owned(),
            size: 40,
            retries: Rc::default(),
        };
        let (publisher, clock) = (Insistent::new(terms.clone(), 3), Clock::start());
        let sent = publisher.sent();
        let once = Schedule::new(Rate::PerSecond(1.0), 0, Duration::from_millis(500));
        publisher.run(once, clock).await.unwrap();
        assert_eq!(sent.count.get(), 1);
        let commands = serving.await.unwrap();
        assert!(commands[0].contains(r#""idempotency_key":"3-0""#), "{}", commands[0]);
        assert!(commands.iter().all(|command| *command == commands[0]));
    }
}
