//! Who publishes: a connection or a backend over HTTP, by schedule.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use fastwebsockets::{OpCode, Payload};
use tokio::task::yield_now;

use crate::centrifuge::PUBLISH;
use crate::channels::Channels;
use crate::clock::{Clock, Timer};
use crate::feed::Source;
use crate::frames;
use crate::mark::Mark;
use crate::schedule::Schedule;
use crate::writer::Writer;

/// Writes publishes when they are due.
#[derive(Debug)]
pub(crate) struct Publisher {
    writer: Rc<Writer>,
    encoder: Encoder,
    clock: Clock,
    timer: Timer,
    sent: Rc<Sent>,
}

/// What a publisher has done so far.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) count: Cell<u64>,
    /// The most nanoseconds between when a publish was due and when it was to be written.
    pub(crate) late: Cell<u64>,
}

impl Publisher {
    pub(crate) fn new(writer: Rc<Writer>, encoder: Encoder, clock: Clock) -> io::Result<Self> {
        let timer = Timer::new(clock)?;
        Ok(Self { writer, encoder, clock, timer, sent: Rc::default() })
    }

    /// What it has done, kept up to date.
    pub(crate) fn sent(&self) -> Rc<Sent> {
        self.sent.clone()
    }

    /// Publishes what the schedule says. What is late is written as soon as the server takes it;
    /// what it has not taken [`GRACE`] after the schedule's end never is.
    pub(crate) async fn run(&mut self, mut schedule: Schedule) -> io::Result<()> {
        let mut batch = Vec::new();
        let give_up = schedule.end().saturating_add(GRACE);
        loop {
            let now = self.clock.now();
            // Only what goes as one call ends with its burst.
            let most = if self.encoder.head.is_some() { schedule.of_call() } else { u64::MAX };
            let mut count = 0;
            while count < most
                && batch.len() < BATCH_MAX
                && now < give_up
                && let Some(due) = schedule.take(now)
            {
                self.encoder.append(due, &mut batch);
                self.sent.late.set(self.sent.late.get().max(now - due));
                count += 1;
            }
            if count > 0 {
                self.encoder.finish(&mut batch);
                if self.writer.write_all(&batch).await.is_err() {
                    // Whoever reads the connection learns how it ended.
                    return Ok(());
                }
                self.sent.count.set(self.sent.count.get() + count);
                batch.clear();
                // Readers share the thread, and a socket that takes everything never waits.
                yield_now().await;
                continue;
            }
            match schedule.next(now).filter(|_| now < give_up) {
                Some(due) => self.timer.until(due).await?,
                None => return Ok(()),
            }
        }
    }
}

/// Turns numbers and times into publishes on the wire.
#[derive(Debug)]
pub(crate) struct Encoder {
    publisher: u16,
    sequence: u32,
    template: Vec<u8>,
    /// Where in the template the mark goes.
    mark: usize,
    channels: Option<Turns>,
    is_framed: bool,
    /// What a call that holds all of a batch begins with, but for its length.
    head: Option<String>,
    copy: Vec<u8>,
}

/// What differs between publishes to channels, and where in the template that goes.
#[derive(Debug)]
struct Turns {
    channels: Channels,
    name: usize,
    /// Of a command.
    id: Option<usize>,
}

impl Encoder {
    pub(crate) fn new(publisher: u16, source: &Source, host: SocketAddr) -> Self {
        let encoder = match source {
            Source::Chat(size) => Self::framed(r#"{"type":"message","body":""#, *size, r#""}"#),
            Source::Bare(size, _) => Self::framed("", *size, ""),
            Source::Client(size, channels) => {
                let before = format!(
                    r#"{{"id":{PUBLISH},"publish":{{"channel":"{FIRST}","data":{{"body":""#
                );
                Self::framed(&before, *size, r#""}}}"#).in_turns(*channels)
            }
            Source::Broadcast(size, key) => Self::request(
                host,
                key,
                "broadcast_all",
                r#""data":{"type":"notification","#,
                *size,
            ),
            Source::Unicast(size, key, user) => {
                let members = format!(r#""user":{user},"data":{{"type":"notification","#);
                Self::request(host, key, "send_to_user", &members, *size)
            }
            Source::Publish(size, key, channels) => {
                let members = format!(r#""channel":"{FIRST}","data":{{"#);
                Self::request(host, key, "publish", &members, *size).in_turns(*channels)
            }
            Source::Batch(size, key, channels) => {
                let before = format!(r#"{{"publish":{{"channel":"{FIRST}","data":{{"body":""#);
                let head =
                    format!("POST /api/batch HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n");
                let command = Self::framed(&before, *size, r#""}}},"#);
                let command = Self { is_framed: false, head: Some(head), ..command };
                command.in_turns(*channels)
            }
        };
        Self { publisher, ..encoder }
    }

    fn framed(before: &str, size: usize, after: &str) -> Self {
        Self {
            publisher: 0,
            sequence: 0,
            template: template(before, size, after),
            mark: before.len(),
            channels: None,
            is_framed: true,
            head: None,
            copy: Vec::new(),
        }
    }

    /// `members` lead up to the body, within the data.
    fn request(host: SocketAddr, key: &str, method: &str, members: &str, size: usize) -> Self {
        let (before, after) = (format!(r#"{{{members}"body":""#), r#""}}"#);
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n\
             content-length: {}\r\n\r\n{before}",
            before.len() + size + after.len()
        );
        Self { is_framed: false, ..Self::framed(&head, size, after) }
    }

    fn in_turns(mut self, channels: Channels) -> Self {
        let find = |text: &str| {
            self.template.windows(text.len()).position(|bytes| bytes == text.as_bytes())
        };
        let id = if self.is_framed { find(&PUBLISH.to_string()) } else { None };
        self.channels = find(FIRST).map(|name| Turns { channels, name, id });
        self
    }

    /// Appends the next publish.
    fn append(&mut self, due: u64, batch: &mut Vec<u8>) {
        let mark = Mark { publisher: self.publisher, sequence: self.sequence, due };
        mark.write(&mut self.template[self.mark..]);
        if let Some(Turns { channels, name, id }) = &self.channels {
            let channel = Channels::name(channels.turn(self.sequence));
            write_over(&mut self.template, *name, &channel);
            if let Some(id) = id {
                write_over(&mut self.template, *id, &(PUBLISH + self.sequence).to_string());
            }
        }
        self.sequence += 1;
        if self.is_framed {
            self.copy.clone_from(&self.template);
            frames::append(batch, true, OpCode::Text, Payload::BorrowedMut(&mut self.copy));
        } else {
            batch.extend_from_slice(&self.template);
        }
    }
}

impl Encoder {
    /// Makes publishes that were appended one call, where they are to be.
    fn finish(&self, batch: &mut Vec<u8>) {
        let Some(head) = &self.head else { return };
        // Without the comma after the last.
        let commands = &batch[..batch.len() - 1];
        let (before, after) = (r#"{"commands":["#, "]}");
        let length = before.len() + commands.len() + after.len();
        let head = format!("{head}content-length: {length}\r\n\r\n{before}");
        *batch = [head.as_bytes(), commands, after.as_bytes()].concat();
    }
}

fn write_over(template: &mut [u8], at: usize, text: &str) {
    template[at..at + text.len()].copy_from_slice(text.as_bytes());
}

fn template(before: &str, size: usize, after: &str) -> Vec<u8> {
    let mut template = before.as_bytes().to_vec();
    template.resize(before.len() + size, b'.');
    template.extend_from_slice(after.as_bytes());
    template
}

/// The name of the first channel.
const FIRST: &str = "load00000";

/// Bytes written at once when much is due.
const BATCH_MAX: usize = 64 * 1024;

/// How long after its end a schedule may be caught up with, in nanoseconds.
const GRACE: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_go_to_channels_in_turn() {
        let host = ([127, 0, 0, 1], 80).into();
        let channels = Channels::new(2, 1).unwrap();
        let source = Source::Publish(Mark::BYTES, "key".to_owned(), channels);
        let mut encoder = Encoder::new(7, &source, host);
        for (sequence, name) in [(0, FIRST), (1, "load00001"), (2, FIRST)] {
            let mut request = Vec::new();
            encoder.append(5, &mut request);
            let request = String::from_utf8(request).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["channel"], name);
            let mark = Mark { publisher: 7, sequence, due: 5 };
            let text = body["data"]["body"].as_str().unwrap();
            assert_eq!(Mark::read(text.as_bytes(), 0), Some(mark));
        }
    }

    #[test]
    fn what_is_due_at_once_is_one_call() {
        let host = ([127, 0, 0, 1], 80).into();
        let channels = Channels::new(2, 1).unwrap();
        let source = Source::Batch(Mark::BYTES, "key".to_owned(), channels);
        let mut encoder = Encoder::new(7, &source, host);
        let mut batch = Vec::new();
        (0..3).for_each(|_| encoder.append(5, &mut batch));
        encoder.finish(&mut batch);
        let request = String::from_utf8(batch).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let channels = |index: usize| &body["commands"][index]["publish"]["channel"];
        assert_eq!(
            (channels(0), channels(1), channels(2)),
            (&FIRST.into(), &"load00001".into(), &FIRST.into())
        );
    }

    #[test]
    fn commands_are_numbered() {
        let channels = Channels::new(2, 1).unwrap();
        let source = Source::Client(Mark::BYTES, channels);
        let mut encoder = Encoder::new(0, &source, ([127, 0, 0, 1], 80).into());
        let mut batch = Vec::new();
        for sequence in 0..3 {
            encoder.append(0, &mut batch);
            // What a frame masks is a copy.
            let command: serde_json::Value = serde_json::from_slice(&encoder.template).unwrap();
            assert_eq!(command["id"], PUBLISH + sequence);
            assert_eq!(command["publish"]["channel"], Channels::name(sequence % 2));
        }
    }
}
