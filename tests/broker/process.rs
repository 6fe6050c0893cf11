//! [`Process`]: a program that serves. [`run`]: one that ends.

use std::fs::{File, read_to_string};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::peer::wait_until;

/// A child process, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts a program and waits until its log says that it serves; the whole log if it ended
    /// instead.
    pub fn start(mut command: Command, log: &Path, serves: &str) -> Result<Self, String> {
        let output = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{:?}: {error}; {HINT}", command.get_program());
        });
        let mut process = Self(child);
        let logged = || read_to_string(log).unwrap();
        let mut ended = false;
        wait_until("it serves or ends", || {
            ended = process.0.try_wait().unwrap().is_some();
            ended || logged().contains(serves)
        });
        if ended { Err(logged()) } else { Ok(process) }
    }

    /// Ends it at once, paused or not; ended already, it stays so.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it: it does nothing more once this returns, though the kernel still opens connections.
    pub fn pause(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP).unwrap();
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    }

    /// Has a paused one go on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, which must be a success; returns what it printed, without the last
/// line's end.
pub fn run(command: &mut Command) -> String {
    let output = command.output();
    let (program, arguments) = (command.get_program(), command.get_args());
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|error| panic!("{program:?}: {error}; {HINT}"));
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{program:?} {arguments:?}: {status}\n{stdout}{stderr}");
    stdout.trim_end().to_owned()
}

/// A program, that of this checkout's environment if it has one.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let environment = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin");
    command.env("PATH", format!("{environment}:{}", std::env::var("PATH").unwrap()));
    command
}

/// What a failure may come from.
const HINT: &str = "if it is missing, run scripts/setup";
