//! [`Peer`]: a WebSocket client that can do everything wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A client on raw bytes.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// A whole masked text frame.
    pub fn send_text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    /// The next frame, of any kind.
    pub fn read_frame(&mut self) -> Frame {
        let [first, second] = self.read();
        assert_eq!(second & 0x80, 0, "a server masks nothing (RFC 6455 section 5.1)");
        let length = match second {
            126 => u16::from_be_bytes(self.read()).into(),
            127 => usize::try_from(u64::from_be_bytes(self.read())).unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        assert_eq!(first & 0xf0, FIN, "a server sends whole frames without extensions");
        Frame { opcode: first & 0x0f, payload }
    }

    /// The next frame, which must be text.
    pub fn read_text(&mut self) -> String {
        self.read_frame().text()
    }

    /// The next text, past pings.
    pub fn read_message(&mut self) -> String {
        loop {
            let frame = self.read_frame();
            if frame.opcode != PING {
                return frame.text();
            }
        }
    }

    /// The code and reason of the Close that must come next, and then the end.
    pub fn read_close(&mut self) -> (u16, String) {
        let close = self.read_frame();
        let close = close.close();
        assert!(self.ends(), "nothing may follow a Close (RFC 6455 section 5.5.1)");
        close
    }

    /// The next Close, past whatever else still came before it.
    pub fn skip_to_close(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.read_frame();
            if frame.opcode == CLOSE {
                return frame.close();
            }
            assert!(Instant::now() < deadline, "no Close came, but more and more else");
        }
    }

    /// Whether the stream ends here, in order: a reset could have taken a Close with it.
    pub fn ends(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).unwrap() == 0
    }

    /// Reads to the end, which here may also be a reset.
    pub fn is_cut(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// An answer's head, up to and with the empty line.
    pub fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read::<1>());
        }
        String::from_utf8(head).unwrap()
    }

    /// Status and text of an answer whose length its head tells.
    pub fn read_answer(&mut self) -> (u16, String) {
        let mut answer = self.read_head();
        let lower = answer.to_ascii_lowercase();
        let length = lower
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").unwrap().0.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        answer.push_str(&String::from_utf8(body).unwrap());
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    pub fn shut_down_writing(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(self) -> String {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        String::from_utf8(self.payload).unwrap()
    }

    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_at(2.min(self.payload.len()));
        let code = code.try_into().map_or(0, u16::from_be_bytes);
        (code, String::from_utf8(reason.to_vec()).unwrap())
    }
}

/// A masked frame whose first byte is given.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header and mask of a frame that claims a length.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(0x80 | length as u8),
        126..=0xffff => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

/// A handshake in order (RFC 6455 section 1.2).
pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{headers}\r\n"
    )
}

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// An answer must carry this header line, however its name is written.
pub fn assert_header(answer: &str, line: &str) {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().any(|header| header.eq_ignore_ascii_case(line)), "{line} in {head}");
}

/// Waits for what only shows by looking.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
