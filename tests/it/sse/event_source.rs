//! [`EventSource`]: a client of Server-Sent Events on raw bytes, as the HTML standard has it (section
//! 9.2), that counts what it was told.

use std::io::Read;

use crate::support::*;

/// A stream whose head has come.
pub struct EventSource {
    pub peer: Peer,
    pub head: String,
    /// The id that it would come back with.
    pub last_event_id: String,
    /// What has come and is not yet read.
    buffer: Vec<u8>,
    pub comments: usize,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

impl EventSource {
    /// A stream of what a query names, with further header lines.
    pub fn open(server: &TestServer, query: &str, headers: &str) -> Self {
        let mut peer = server.dial();
        peer.send(get(query, headers).as_bytes());
        Self::on(peer)
    }

    /// A stream whose head is what comes next.
    pub fn on(mut peer: Peer) -> Self {
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let last_event_id = String::new();
        Self { peer, head, last_event_id, buffer: Vec::new(), comments: 0 }
    }

    /// A stream that goes on where this one ends, which is cut.
    pub fn reopen(self, server: &TestServer, query: &str) -> Self {
        let id = self.last_event_id;
        drop(self.peer);
        let header = if id.is_empty() { String::new() } else { format!("last-event-id: {id}\r\n") };
        Self { last_event_id: id, ..Self::open(server, query, &header) }
    }

    /// The next event; `None` at the end.
    pub fn next(&mut self) -> Option<Event> {
        let (mut name, mut data, mut id) = (String::new(), Vec::new(), None);
        while let Some(line) = self.line() {
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    self.last_event_id =
                        id.take().unwrap_or(std::mem::take(&mut self.last_event_id));
                    let name = std::mem::take(&mut name);
                    if !data.is_empty() {
                        return Some(Event { name, data: data.join("\n") });
                    }
                }
                "" => self.comments += 1,
                "event" => value.clone_into(&mut name),
                "data" => data.push(value.to_owned()),
                "id" => id = Some(value.to_owned()),
                _ => panic!("a field that no client knows: {line}"),
            }
        }
        assert!(data.is_empty(), "the end came within an event");
        None
    }

    /// The next event's name and data.
    pub fn expect(&mut self, name: &str, data: &str) {
        let event = Event { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(self.next(), Some(event));
    }

    /// Reads until the stream has said where it stands.
    pub fn read_position(&mut self) {
        while self.last_event_id.is_empty() {
            let line = self.line().unwrap();
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.last_event_id);
                assert_eq!(self.line().as_deref(), Some(""), "the position is no event's");
            }
        }
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.peer.stream.read(&mut bytes).unwrap() {
                0 => return None,
                read => self.buffer.extend_from_slice(&bytes[..read]),
            }
        }
    }
}

/// A request for a stream.
pub fn get(query: &str, headers: &str) -> String {
    format!("GET /sse{query} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n{headers}\r\n")
}
