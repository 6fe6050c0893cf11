//! The connection that hears: what comes by all subscriptions comes in the order in which it was sent.
//!
//! async-nats gives each subscription a queue of its own, by which that order is lost, and drops what
//! does not fit into one. What is published goes by this connection too, as the answer of a server comes
//! with what is heard of it, and so wakes this node once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::dial::Connection;
use super::error::{JetStreamError, patiently};
use super::history;
use super::wire::{self, Message, Said};
use crate::broker::feed::Inlet;
use crate::broker::topic::Topic;

/// Has the connection publish and subscribe; it ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Hearing {
    commands: mpsc::UnboundedSender<Command>,
    /// Bytes of a publish that the server takes.
    max_payload: usize,
    /// Why it ended, if it did.
    reason: Arc<OnceLock<String>>,
}

#[derive(Debug)]
enum Command {
    /// Topics and their subjects.
    Subscribe(Vec<(Topic, String)>),
    Unsubscribe(Vec<Topic>),
    Publish(String, Bytes),
    /// A subject, headers, a payload, and what is told of it.
    Ask(String, String, Bytes, Answer),
    /// What is told once the server has done all that was sent before.
    Flush(oneshot::Sender<()>),
}

type Answer = oneshot::Sender<Result<Bytes, JetStreamError>>;

impl Hearing {
    /// Has what comes go into a feed from now on. Under an `inbox`, a subject that no other connection uses,
    /// answers come.
    pub(super) fn start(line: Connection, inbox: String, inlet: Arc<Inlet>) -> Self {
        let (commands, mut receiver) = mpsc::unbounded_channel();
        let (max_payload, reason) = (line.info.max_payload, Arc::<OnceLock<String>>::default());
        let hearing = Self { commands, max_payload, reason: reason.clone() };
        tokio::spawn(async move {
            let mut known = Line::new(inbox, &inlet);
            if let Err(error) = known.serve(line, &mut receiver).await {
                // Told before those who wait learn that nothing comes.
                let reason = reason.get_or_init(|| format!("{ENDED}: {error}"));
                inlet.end(reason.clone());
            }
        });
        hearing
    }

    /// Subscribes; the server has done so once it resolves.
    pub(super) async fn subscribe(
        &self,
        topics: Vec<(Topic, String)>,
    ) -> Result<(), JetStreamError> {
        self.send(Command::Subscribe(topics));
        self.flush().await
    }

    pub(super) fn unsubscribe(&self, topics: Vec<Topic>) {
        self.send(Command::Unsubscribe(topics));
    }

    /// Sends what needs no answer; that it came is not known before a [`flush`](Self::flush).
    pub(super) fn publish(&self, subject: String, payload: Bytes) -> Result<(), JetStreamError> {
        self.check(payload.len())?;
        self.send(Command::Publish(subject, payload));
        Ok(())
    }

    /// Sends what is answered, with headers as the protocol has them, each with the end of its line.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: String,
        payload: Bytes,
    ) -> Result<Bytes, JetStreamError> {
        self.check(wire::headers_len(&headers) + payload.len())?;
        let (answer, answered) = oneshot::channel();
        self.send(Command::Ask(subject, headers, payload, answer));
        patiently(async { answered.await.unwrap_or_else(|_| Err(self.ended())) }).await
    }

    /// Resolves once the server has done all that was sent before: it takes what comes by a connection in
    /// order.
    pub(super) async fn flush(&self) -> Result<(), JetStreamError> {
        let (done, flushed) = oneshot::channel();
        self.send(Command::Flush(done));
        patiently(async { flushed.await.map_err(|_| self.ended()) }).await
    }

    fn ended(&self) -> JetStreamError {
        JetStreamError::Lost(self.reason.get().map_or(ENDED, String::as_str).to_owned())
    }

    /// A server would end the connection for what is too large.
    fn check(&self, length: usize) -> Result<(), JetStreamError> {
        if length > self.max_payload {
            return Err(JetStreamError::Refused(format!(
                "{length} bytes are more than the server's max_payload of {}; raise that",
                self.max_payload
            )));
        }
        Ok(())
    }

    fn send(&self, command: Command) {
        // If it is gone, so is the other end of what waits for an answer, and it hears nothing either.
        let _ = self.commands.send(command);
    }
}

/// What is known of the connection.
struct Line<'a> {
    inlet: &'a Inlet,
    inbox: String,
    /// What is to be sent.
    output: BytesMut,
    last_subscription: u64,
    topics: HashMap<u64, Topic>,
    subscriptions: HashMap<Topic, u64>,
    last_question: u64,
    asked: HashMap<u64, Answer>,
    /// What is told by the next answers to pings.
    flushing: VecDeque<oneshot::Sender<()>>,
}

impl<'a> Line<'a> {
    fn new(inbox: String, inlet: &'a Inlet) -> Self {
        let mut output = BytesMut::new();
        wire::subscribe(&mut output, &format!("{inbox}.*"), ANSWERS);
        Self {
            inlet,
            inbox,
            output,
            last_subscription: ANSWERS,
            topics: HashMap::new(),
            subscriptions: HashMap::new(),
            last_question: 0,
            asked: HashMap::new(),
            flushing: VecDeque::new(),
        }
    }

    async fn serve(
        &mut self,
        Connection { stream, buffer: mut input, .. }: Connection,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut is_sent = true;
        loop {
            while let Some(said) = wire::take(&mut input)? {
                self.hear(said)?;
            }
            input.reserve(READ);
            is_sent &= self.output.is_empty();
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    self.carry_out(command);
                    while let Ok(command) = commands.try_recv() {
                        self.carry_out(command);
                    }
                }
                read = reader.read_buf(&mut input) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                sent = send(&mut writer, &mut self.output), if !is_sent => {
                    if sent.is_err() {
                        // Why, the server may have said, which is read before the end.
                        self.output.clear();
                    }
                    is_sent = true;
                }
            }
        }
    }

    fn hear(&mut self, said: Said) -> io::Result<()> {
        match said {
            Said::Message(message) if message.subscription == ANSWERS => self.take_answer(message),
            Said::Message(Message { subscription, payload, .. }) => {
                let topic = self.topics.get(&subscription);
                if let Some(topic) = topic.filter(|_| !history::is_bare_position(&payload)) {
                    self.inlet.hear(topic.clone(), payload);
                }
            }
            Said::Ping => self.output.extend_from_slice(b"PONG\r\n"),
            Said::Pong => {
                if let Some(done) = self.flushing.pop_front() {
                    // Who gave up does not mind.
                    let _ = done.send(());
                }
            }
            Said::Error(error) => return Err(io::Error::other(error)),
            Said::Info(_) => {}
        }
        Ok(())
    }

    fn take_answer(&mut self, Message { token, status, payload, .. }: Message) {
        let Some(answer) = token.and_then(|number| self.asked.remove(&number)) else { return };
        let is_taken = status != Some(wire::NO_RESPONDERS);
        let _ = answer.send(if is_taken { Ok(payload) } else { Err(JetStreamError::NoStream) });
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Subscribe(topics) => {
                for (topic, subject) in topics {
                    self.last_subscription += 1;
                    wire::subscribe(&mut self.output, &subject, self.last_subscription);
                    self.topics.insert(self.last_subscription, topic.clone());
                    self.subscriptions.insert(topic, self.last_subscription);
                }
            }
            Command::Unsubscribe(topics) => {
                for topic in topics {
                    if let Some(number) = self.subscriptions.remove(&topic) {
                        self.topics.remove(&number);
                        wire::unsubscribe(&mut self.output, number);
                    }
                }
            }
            Command::Publish(subject, payload) => {
                wire::publish(&mut self.output, &subject, &payload);
            }
            Command::Ask(subject, headers, payload, answer) => {
                self.last_question += 1;
                let reply = format!("{}.{}", self.inbox, self.last_question);
                wire::ask(&mut self.output, &subject, &reply, &headers, &payload);
                if self.asked.len() == self.asked.capacity() {
                    // Of those who gave up nothing may stay.
                    self.asked.retain(|_, answer| !answer.is_closed());
                }
                self.asked.insert(self.last_question, answer);
            }
            Command::Flush(done) => {
                self.output.extend_from_slice(b"PING\r\n");
                self.flushing.push_back(done);
            }
        }
    }
}

/// Sends all of it; what is cancelled may be begun again.
async fn send(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<()> {
    while !output.is_empty() {
        writer.write_buf(output).await?;
    }
    writer.flush().await
}

const ENDED: &str = "the connection that hears ended";

/// The subscription by which answers come.
const ANSWERS: u64 = 1;

/// Bytes that are read at once, if so many are there.
const READ: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream};

    use super::*;
    use crate::broker::feed::Feed;

    /// A connection whose server takes up to 100 bytes, that server's end of it, and what is heard.
    fn start() -> (Hearing, BufReader<DuplexStream>, Feed) {
        let (stream, server) = tokio::io::duplex(1 << 10);
        let info = r#"{"version": "2.10.0", "max_payload": 100}"#;
        let info = serde_json::from_str(info).unwrap();
        let line = Connection { stream: Box::new(stream), buffer: BytesMut::new(), info };
        let (inlet, feed) = Feed::new(1 << 20);
        (Hearing::start(line, "_INBOX.x".to_owned(), Arc::new(inlet)), BufReader::new(server), feed)
    }

    async fn expect(server: &mut BufReader<DuplexStream>, text: &str) {
        for line in text.split_inclusive('\n') {
            let mut read = String::new();
            server.read_line(&mut read).await.unwrap();
            assert_eq!(read, line);
        }
    }

    async fn ask(hearing: &Hearing, payload: &'static str) -> Result<Bytes, JetStreamError> {
        hearing.ask("a".to_owned(), String::new(), payload.into()).await
    }

    #[tokio::test]
    async fn each_question_has_its_own_answer() {
        let (hearing, mut server, _feed) = start();
        let serve = async {
            expect(&mut server, "SUB _INBOX.x.* 1\r\n").await;
            expect(&mut server, "HPUB a _INBOX.x.1 12 13\r\nNATS/1.0\r\n\r\n1\r\n").await;
            expect(&mut server, "HPUB a _INBOX.x.2 12 13\r\nNATS/1.0\r\n\r\n2\r\n").await;
            let answers =
                "HMSG _INBOX.x.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nMSG _INBOX.x.1 1 2\r\nhi\r\n";
            server.write_all(answers.as_bytes()).await.unwrap();
        };
        let (first, second, ()) = tokio::join!(ask(&hearing, "1"), ask(&hearing, "2"), serve);
        assert_eq!(first.unwrap(), "hi");
        assert!(matches!(second, Err(JetStreamError::NoStream)));
    }

    #[tokio::test]
    async fn what_a_server_would_end_the_connection_for_is_not_sent() {
        let (hearing, mut server, _feed) = start();
        let large = Bytes::from_static(&[b'x'; 101]);
        let refused = hearing.publish("a".to_owned(), large.clone()).unwrap_err().to_string();
        assert_eq!(refused, "101 bytes are more than the server's max_payload of 100; raise that");
        // With headers of twelve bytes.
        let refused = hearing.ask("a".to_owned(), String::new(), large.slice(..89)).await;
        assert!(matches!(refused, Err(JetStreamError::Refused(_))));
        let serve = async {
            expect(&mut server, "SUB _INBOX.x.* 1\r\nPING\r\n").await;
            server.write_all(b"PONG\r\n").await.unwrap();
        };
        let (flushed, ()) = tokio::join!(hearing.flush(), serve);
        flushed.unwrap();
    }

    #[tokio::test]
    async fn of_what_is_asked_as_the_connection_ends_nothing_is_known() {
        let (hearing, mut server, _feed) = start();
        let serve = async {
            server.write_all(b"-ERR 'Stale Connection'\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&hearing, "1"), serve);
        for ended in [answer.map(drop), hearing.flush().await] {
            let Err(JetStreamError::Lost(reason)) = ended else { panic!("{ended:?}") };
            assert_eq!(reason, "the connection that hears ended: Stale Connection");
        }
    }

    #[tokio::test]
    async fn why_it_ends_is_told_even_if_a_write_fails_first() {
        // Which comes first is chance.
        for _ in 0..32 {
            let (hearing, mut server, _feed) = start();
            server.write_all(b"-ERR 'Stale Connection'\r\n").await.unwrap();
            drop(server);
            let reason = hearing.flush().await.unwrap_err().to_string();
            assert_eq!(reason, "the connection that hears ended: Stale Connection");
        }
    }

    #[test]
    fn nothing_stays_of_those_who_gave_up() {
        let (inlet, _feed) = Feed::new(1 << 20);
        let mut line = Line::new("_INBOX.x".to_owned(), &inlet);
        for _ in 0..1000 {
            let (answer, _) = oneshot::channel();
            line.carry_out(Command::Ask("a".to_owned(), String::new(), Bytes::new(), answer));
        }
        assert!(line.asked.len() < 10);
    }
}
