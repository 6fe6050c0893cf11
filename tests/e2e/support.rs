//! [`Service`]: a program that serves. [`run`]: a client whose exit code is its verdict.

use std::io::{BufRead, BufReader, pipe};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child process that listens, killed when dropped.
pub struct Service {
    /// `http://` and the address that it prints.
    pub url: String,
    /// What it prints after that.
    pub lines: Receiver<String>,
    child: Child,
}

impl Service {
    /// Starts a program and waits until it says where it listens.
    pub fn start(command: Command) -> Self {
        let (child, lines) = spawn(command);
        let url = loop {
            let line = lines.recv_timeout(PATIENCE);
            let line =
                line.unwrap_or_else(|error| panic!("{error}: it never said where it listens"));
            let said = ["http://", "address="].iter().find_map(|before| line.split_once(before));
            if let Some((_, rest)) = said {
                break format!("http://{}", rest.split(['/', ' ']).next().unwrap());
            }
        };
        Self { url, lines, child }
    }

    /// Starts a program that does not say where it listens, and waits until it does.
    pub fn start_at(address: SocketAddr, command: Command) -> Self {
        let (child, lines) = spawn(command);
        let mut service = Self { url: format!("http://{address}"), lines, child };
        wait_until("it listens", || {
            assert!(!service.has_ended(), "it ended before it listened");
            TcpStream::connect(address).is_ok()
        });
        service
    }

    /// `fanfare dev` at a free port, quick to announce that a user left, and to drain.
    pub fn fanfare() -> Self {
        let mut command = fanfare(&["dev", "--bind", "127.0.0.1:0"]);
        command.env("FANFARE_CHAT_LINGER", "100ms").env("FANFARE_DRAIN_SPREAD", "100ms");
        command.env("FANFARE_LOG_FILTER", "warn");
        Self::start(command)
    }

    /// Runs a client that is told where the server is and who it may be.
    pub fn run(&self, client: Command) -> String {
        run(&self.tell(client))
    }

    /// Tells a client where the server is and who it may be.
    pub fn tell(&self, mut client: Command) -> Command {
        client.env("FANFARE_URL", &self.url).env("FANFARE_PID", self.child.id().to_string());
        client.env("ADA", token(42, "Ada")).env("GRACE", token(43, "Grace"));
        with_secrets(client)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it prints a line with these words.
    pub fn expect_line(&self, words: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            if line.unwrap_or_else(|error| panic!("{error}: {words}")).contains(words) {
                return;
            }
        }
    }

    /// Waits for its end; `drain.timeout` bounds it once it was told to end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program; its lines of either kind are shown with a failing test, and sent on.
fn spawn(mut command: Command) -> (Child, Receiver<String>) {
    let (output, input) = pipe().unwrap();
    command.stdout(input.try_clone().unwrap()).stderr(input);
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{:?}: {error}; {HINT}", command.get_program());
    });
    let (sender, lines) = channel();
    // The command keeps the pipe's other end, and so its reader waiting.
    drop(command);
    std::thread::spawn(move || pass_on(BufReader::new(output), &sender));
    (child, lines)
}

/// Shows every line with a failing test, and sends it on while someone listens.
fn pass_on(lines: impl BufRead, to: &Sender<String>) {
    for line in lines.lines().map_while(Result::ok) {
        println!("{line}");
        let _ = to.send(line);
    }
}

/// Runs a client to its end, which must be a success and come in time; returns what it printed.
pub fn run(client: &Command) -> String {
    let mut timed = Command::new("timeout");
    timed.arg(PATIENCE.as_secs().to_string()).arg(client.get_program()).args(client.get_args());
    timed.envs(client.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = timed.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    let (status, program) = (output.status, client.get_program());
    assert!(status.success(), "{program:?}: {status}; {HINT}\n{stdout}{stderr}");
    stdout
}

/// Looks again and again, as nothing tells.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The binary, with the secrets that clients know.
pub fn fanfare(arguments: &[&str]) -> Command {
    let mut command = Command::new(FANFARE);
    command.args(arguments);
    with_secrets(command)
}

/// A Python client.
pub fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(path(".venv/bin/python"));
    command.arg(path("tests/e2e/clients").join(script)).args(arguments);
    command
}

/// A Node.js client.
pub fn node(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(path("tests/e2e/clients").join(script)).args(arguments);
    command
}

/// Any other client.
pub fn program(name: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// The settings that a server and whoever works with it share.
pub fn with_secrets(mut command: Command) -> Command {
    command.env("FANFARE_AUTH_HMAC_SECRET", "a secret for tests, 32 bytes long");
    command.env("FANFARE_API_KEY", "an api key for tests");
    command
}

/// A path under the repository's root.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A token, made on the command line.
fn token(sub: i32, name: &str) -> String {
    let token = run(&fanfare(&["token", "--sub", &sub.to_string(), "--name", name]));
    token.trim().to_owned()
}

pub const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

/// What a failure may come from.
const HINT: &str = "if a tool is missing, run scripts/setup";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
