//! The connection that hears: what comes by all subscriptions comes in the order in which it was sent.
//!
//! async-nats gives each subscription a queue of its own, by which that order is lost, and drops what
//! does not fit into one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::dial::Connection;
use super::wire::{self, Said};
use super::{PATIENCE, history};
use crate::broker::engine::Failure;
use crate::broker::feed::Inlet;
use crate::broker::topic::Topic;

/// Has the connection subscribe; with it the connection ends.
#[derive(Debug)]
pub(super) struct Hearing(mpsc::UnboundedSender<Command>);

#[derive(Debug)]
enum Command {
    /// Topics and their subjects, and what is told once they are subscribed.
    Subscribe(Vec<(Topic, String)>, oneshot::Sender<()>),
    Unsubscribe(Vec<Topic>),
}

impl Hearing {
    /// Has what comes go into a feed from now on.
    pub(super) fn start(line: Connection, inlet: Arc<Inlet>) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            if let Err(error) = Reader::new(line, &inlet).serve(commands).await {
                inlet.end(format!("the connection that hears ended: {error}"));
            }
        });
        Self(sender)
    }

    /// Subscribes; the server has done so once it resolves.
    pub(super) async fn subscribe(&self, topics: Vec<(Topic, String)>) -> Result<(), Failure> {
        let (done, subscribed) = oneshot::channel();
        // If it is gone, so is the other end of `done`.
        let _ = self.0.send(Command::Subscribe(topics, done));
        match tokio::time::timeout(PATIENCE, subscribed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::new("the connection that hears ended")),
            Err(_) => Err(Failure::new("it does not subscribe within 3 s")),
        }
    }

    pub(super) fn unsubscribe(&self, topics: Vec<Topic>) {
        // One that is gone hears nothing either.
        let _ = self.0.send(Command::Unsubscribe(topics));
    }
}

struct Reader<'a> {
    line: Connection,
    inlet: &'a Inlet,
    last: u64,
    topics: HashMap<u64, Topic>,
    subscriptions: HashMap<Topic, u64>,
    /// What is told by the next answers to pings.
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl<'a> Reader<'a> {
    fn new(line: Connection, inlet: &'a Inlet) -> Self {
        let (topics, subscriptions) = (HashMap::new(), HashMap::new());
        Self { line, inlet, last: 0, topics, subscriptions, waiting: VecDeque::new() }
    }

    async fn serve(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> io::Result<()> {
        loop {
            while let Some(said) = wire::take(&mut self.line.buffer)? {
                self.take(said).await?;
            }
            self.line.buffer.reserve(READ);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.carry_out(command).await?,
                    None => return Ok(()),
                },
                read = self.line.stream.read_buf(&mut self.line.buffer) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    async fn take(&mut self, said: Said) -> io::Result<()> {
        match said {
            Said::Message { subscription, payload } => {
                let topic = self.topics.get(&subscription);
                if let Some(topic) = topic.filter(|_| !history::is_bare_position(&payload)) {
                    self.inlet.hear(topic.clone(), payload);
                }
            }
            Said::Ping => self.line.stream.write_all(b"PONG\r\n").await?,
            Said::Pong => {
                if let Some(done) = self.waiting.pop_front() {
                    // Who gave up does not mind.
                    let _ = done.send(());
                }
            }
            Said::Error(error) => return Err(io::Error::other(error)),
            Said::Info(_) => {}
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: Command) -> io::Result<()> {
        let mut text = String::new();
        match command {
            Command::Subscribe(topics, done) => {
                for (topic, subject) in topics {
                    self.last += 1;
                    text.push_str(&format!("SUB {subject} {}\r\n", self.last));
                    self.topics.insert(self.last, topic.clone());
                    self.subscriptions.insert(topic, self.last);
                }
                text.push_str("PING\r\n");
                self.waiting.push_back(done);
            }
            Command::Unsubscribe(topics) => {
                for topic in topics {
                    if let Some(number) = self.subscriptions.remove(&topic) {
                        self.topics.remove(&number);
                        text.push_str(&format!("UNSUB {number}\r\n"));
                    }
                }
            }
        }
        self.line.stream.write_all(text.as_bytes()).await
    }
}

/// Bytes that are read at once, if so many are there.
const READ: usize = 16 << 10;
