//! [`Daemon`]: a server of somebody else's, that a test may kill, pause and start again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use crate::directory::Directory;
use crate::ports::free_port;
use crate::process::Process;

/// A server at a port and in a directory of its own; both are free when it is dropped.
pub struct Daemon {
    process: Process,
    port: u16,
    directory: Directory,
    command: Box<MakeCommand>,
    serves: &'static str,
}

/// How to start a server at a port and in a directory.
type MakeCommand = dyn Fn(u16, &Path) -> Command + Send + Sync;

impl Daemon {
    /// Starts a server at a free port; it serves when this returns, as its log tells.
    ///
    /// The log is asked, and not the port: there, whoever took it in the meantime might answer.
    pub fn start(
        serves: &'static str,
        command: impl Fn(u16, &Path) -> Command + Send + Sync + 'static,
    ) -> Self {
        let (directory, command) = (Directory::new(), Box::new(command));
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let port = free_port();
            match launch(command(port, directory.path()), &directory, serves) {
                Ok(process) => return Self { process, port, directory, command, serves },
                Err(ended) => log = ended,
            }
        }
        panic!("it ended instead of serving: {log}");
    }

    /// Where it listens, also after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same, with 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it if it still runs, and starts it at the same port, with the files that it left.
    pub fn restart(&mut self) {
        self.kill();
        let command = (self.command)(self.port, self.directory.path());
        let process = launch(command, &self.directory, self.serves);
        self.process = process.unwrap_or_else(|log| panic!("it ended instead of serving: {log}"));
    }

    /// Kills it if it still runs, and starts it at the same port, without the files that it left.
    pub fn restart_empty(&mut self) {
        self.kill();
        self.directory.clear();
        self.restart();
    }

    /// Has it do nothing until resumed; connections to it stay, and new ones open, without answer.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Has it go on, and answer what it was asked meanwhile.
    pub fn resume(&self) {
        self.process.resume();
    }
}

fn launch(command: Command, directory: &Directory, serves: &str) -> Result<Process, String> {
    Process::start(command, &directory.path().join("log"), serves)
}

/// How many ports are tried; a clash is rare, and a wrong argument fails at each.
const ATTEMPTS: usize = 3;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::redis::{SERVES, cli, server};

    #[test]
    fn a_server_whose_port_is_taken_gets_another() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (taken_port, first) = (taken.local_addr().unwrap().port(), AtomicBool::new(true));
        let daemon = Daemon::start(SERVES, move |port, directory| {
            let port = if first.swap(false, Relaxed) { taken_port } else { port };
            server(port, directory)
        });
        assert_eq!(cli(daemon.port(), &["ping"]), "PONG");
    }

    #[test]
    fn a_dropped_server_leaves_neither_files_nor_a_listener() {
        let daemon = Daemon::start(SERVES, server);
        let (address, path) = (daemon.address(), daemon.directory.path().to_owned());
        assert!(path.exists());
        drop(daemon);
        assert!(!path.exists());
        assert!(TcpStream::connect(address).is_err());
    }
}
