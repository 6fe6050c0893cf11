use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::peer::{FIN, Peer, TEXT, frame, handshake};

/// `fanfare`, knowing nothing of the variables around the tests.
pub fn fanfare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error of a run that ends by itself.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A TOML file that is gone with its test.
pub struct File(pub PathBuf);

impl File {
    pub fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server that runs until its test ends.
pub struct Serving {
    pub child: Child,
    pub address: SocketAddr,
    pub stderr: BufReader<ChildStderr>,
}

impl Serving {
    /// `fanfare serve` at a free port, with these variables over the tests' own.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        Self::spawn(fanfare(&["serve"]).envs(variables.iter().copied()))
    }

    /// A command that comes to serve, and says where on standard error.
    pub fn spawn(command: &mut Command) -> Self {
        let variables =
            [("AUTH_HMAC_SECRET", SECRET), ("API_KEY", API_KEY), ("SERVER_BIND", "127.0.0.1:0")];
        for (key, value) in variables {
            command.env(format!("FANFARE_{key}"), value);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it served");
            if let Some((_, rest)) = line.split_once("serving address=") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        Self { child, address, stderr }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: exit code, and what was logged since.
    pub fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }

    pub fn dial(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// A chat connection, registered when this returns.
    pub fn connect(&self, user: i32) -> Peer {
        let mut peer = self.dial();
        let token = token(user);
        peer.send(handshake(&format!("/ws/chat?token={token}"), "").as_bytes());
        assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
        peer.send(&frame(FIN | TEXT, br#"{"type":"ping"}"#));
        while peer.read_frame().text() != r#"{"type":"pong"}"# {}
        peer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `fanfare token` prints for a user.
pub fn token(user: i32) -> String {
    let mut command = fanfare(&["token", "--sub", &user.to_string()]);
    let (code, token, _) = outcome(command.env("FANFARE_AUTH_HMAC_SECRET", SECRET));
    assert_eq!(code, 0);
    token.trim().to_owned()
}

pub const SECRET: &str = "a secret for tests, 32 bytes long";
pub const API_KEY: &str = "an api key for tests";
