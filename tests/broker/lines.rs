//! [`Lines`]: a client that speaks lines of text, which Redis and NATS both understand.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::peer::PATIENCE;

/// A connection on which lines go both ways.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Opens one; it says nothing by itself.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a line, to which its end is added.
    pub fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// The next line, without its end.
    pub fn read(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "the connection ended: {line:?}");
        line.trim_end().to_owned()
    }

    /// What is answered to a line, in one.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.read()
    }

    /// Whether nothing comes for a moment, neither a byte nor an end.
    pub fn is_silent(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(MOMENT)).unwrap();
        let came = self.0.fill_buf().map(<[u8]>::len);
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        came.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the connection is over, and not silent.
    pub fn ends(&mut self) -> bool {
        match self.0.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// How long a silence is, against microseconds that an answer takes.
const MOMENT: Duration = Duration::from_millis(200);
