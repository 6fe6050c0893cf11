//! The yardstick: what fan-out costs with no features at all.
//!
//! One thread and epoll, and a read of at most 64 KiB. To all: all whole frames in it are re-framed
//! into one buffer, and that is one `send` to every connection, the sender's own included. Unicast:
//! each frame is one `send` to one connection, those but the sender's own in turn. There is no token,
//! no limit, no heartbeat and no check of what the frames say.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fastwebsockets::{Frame, OpCode, Payload};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use sha1::{Digest, Sha1};
use slab::Slab;

/// Serves for ever; says on standard output where.
///
/// # Errors
///
/// The address cannot be listened on, or epoll fails.
pub(crate) fn serve(bind: SocketAddr, is_unicast: bool) -> io::Result<()> {
    let listener = TcpListener::bind(bind)?;
    println!("{}", listener.local_addr()?);
    Floor::new(listener, is_unicast)?.run()
}

struct Floor {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Slab<Connection>,
    input: Box<[u8]>,
    is_unicast: bool,
    /// Whom the last frame went to, if each goes to one.
    last: usize,
}

struct Connection {
    stream: TcpStream,
    is_open: bool,
    /// What has come of a handshake or a frame that is not whole.
    partial: Vec<u8>,
    /// What the socket did not take.
    backlog: Vec<u8>,
}

impl Floor {
    fn new(listener: TcpListener, is_unicast: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let input = vec![0; READ_MAX].into_boxed_slice();
        Ok(Self { epoll, listener, connections: Slab::new(), input, is_unicast, last: 0 })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let (data, flags) = (event.data.u64(), event.flags);
                if data == LISTENER {
                    self.accept()?;
                    continue;
                }
                let key = data as usize;
                if flags.contains(EventFlags::OUT) {
                    self.flush(key);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read(key);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            epoll::add(
                &self.epoll,
                &stream,
                EventData::new_u64(entry.key() as u64),
                EventFlags::IN,
            )?;
            entry.insert(Connection {
                stream,
                is_open: false,
                partial: Vec::new(),
                backlog: Vec::new(),
            });
        }
    }

    fn read(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.stream.read(&mut self.input) {
            Ok(0) => drop(self.connections.remove(key)),
            Ok(length) => {
                connection.partial.extend_from_slice(&self.input[..length]);
                if connection.is_open {
                    self.fan_out(key);
                } else if connection.shake_hands().is_err() {
                    self.connections.remove(key);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => drop(self.connections.remove(key)),
        }
    }

    fn fan_out(&mut self, from: usize) {
        let mut burst = Vec::with_capacity(READ_MAX);
        let Some(connection) = self.connections.get_mut(from) else { return };
        let mut input = std::mem::take(&mut connection.partial);
        let mut used = 0;
        while let Some(size) = reframe(&mut input[used..], &mut burst) {
            used += size;
            if self.is_unicast {
                self.send_to_next(from, &burst);
                burst.clear();
            }
        }
        if used < input.len()
            && let Some(connection) = self.connections.get_mut(from)
        {
            connection.partial = input.split_off(used);
        }
        if burst.is_empty() {
            return;
        }
        for (key, connection) in &mut self.connections {
            send(&self.epoll, key, connection, &burst);
        }
    }

    fn send_to_next(&mut self, from: usize, frame: &[u8]) {
        let keys = self.connections.capacity();
        let mut turn = (self.last + 1..keys).chain(0..self.last + 1);
        let is_next = |key: &usize| {
            *key != from && self.connections.get(*key).is_some_and(|connection| connection.is_open)
        };
        let Some(next) = turn.find(is_next) else { return };
        self.last = next;
        send(&self.epoll, next, &mut self.connections[next], frame);
    }

    fn flush(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let written = connection.stream.write(&connection.backlog).unwrap_or(0);
        connection.backlog.drain(..written);
        if connection.backlog.is_empty() {
            connection.backlog = Vec::new();
            watch(&self.epoll, key, connection, EventFlags::IN);
        }
    }
}

impl Connection {
    /// Answers the handshake once all of it is there.
    fn shake_hands(&mut self) -> io::Result<()> {
        let Some(end) = self.partial.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(());
        };
        let head = String::from_utf8_lossy(&self.partial[..end]);
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
        let (_, key) = key.ok_or(ErrorKind::InvalidData)?;
        let digest = Sha1::new().chain_update(key.trim()).chain_update(GUID).finalize();
        let accept = BASE64_STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        self.partial = Vec::new();
        self.is_open = true;
        self.stream.write_all(answer.as_bytes())
    }

    /// Sends, or keeps what the socket does not take; says whether it must be watched for room.
    fn send(&mut self, burst: &[u8]) -> bool {
        if !self.backlog.is_empty() {
            self.backlog.extend_from_slice(burst);
            return false;
        }
        let written = match self.stream.write(burst) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // Reading finds out as well, and removes the connection.
            Err(_) => return false,
        };
        self.backlog.extend_from_slice(&burst[written..]);
        !self.backlog.is_empty()
    }
}

fn send(epoll: &OwnedFd, key: usize, connection: &mut Connection, burst: &[u8]) {
    if connection.is_open && connection.send(burst) {
        watch(epoll, key, connection, EventFlags::IN | EventFlags::OUT);
    }
}

fn watch(epoll: &OwnedFd, key: usize, connection: &Connection, flags: EventFlags) {
    // Fails only for a socket that is not registered, and all are.
    let _ = epoll::modify(epoll, &connection.stream, EventData::new_u64(key as u64), flags);
}

/// Appends the frame that a client's stream begins with, if it is data, as a server's; returns its
/// size once it is whole.
fn reframe(input: &mut [u8], output: &mut Vec<u8>) -> Option<usize> {
    let (opcode, header, length) = parse(input)?;
    let (header, payload) = input.get_mut(..header + length)?.split_at_mut(header);
    let size = header.len() + length;
    let mask = header.last_chunk().copied();
    let mut frame = Frame::new(true, opcode, mask, Payload::BorrowedMut(payload));
    frame.unmask();
    if matches!(opcode, OpCode::Text | OpCode::Binary) {
        let mut head = [0; 10];
        let mut frame = Frame::new(true, opcode, None, frame.payload);
        let size = frame.fmt_head(&mut head);
        output.extend_from_slice(&head[..size]);
        output.extend_from_slice(&frame.payload);
    }
    Some(size)
}

/// Opcode, bytes of the header, bytes of the payload.
fn parse(bytes: &[u8]) -> Option<(OpCode, usize, usize)> {
    let (first, second) = (bytes.first()?, bytes.get(1)?);
    let opcode = OpCode::try_from(first & 0x0f).ok()?;
    let (header, length) = match second & 0x7f {
        126 => (4, u16::from_be_bytes(*bytes[2..].first_chunk()?) as usize),
        127 => (10, u64::from_be_bytes(*bytes[2..].first_chunk()?) as usize),
        short => (2, short as usize),
    };
    Some((opcode, header + MASK, length))
}

const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 1024;
const READ_MAX: usize = 64 * 1024;
const MASK: usize = 4;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
