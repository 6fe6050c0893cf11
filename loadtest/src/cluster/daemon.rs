//! A server that was started here: killed, and started again.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::failure::Failure;

/// A process that says in its log once it serves; killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    command: Command,
    log: PathBuf,
    serves: &'static str,
    child: Child,
}

impl Daemon {
    /// Starts a program, what it prints going to `log`; it serves once this says so in there.
    ///
    /// The log is asked, and not the port: there somebody else might answer.
    pub(super) async fn start(
        name: String,
        mut command: Command,
        log: PathBuf,
        serves: &'static str,
    ) -> Result<Self, Failure> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(&mut command)?;
        let mut daemon = Self { name, command, log, serves, child };
        daemon.serve(0).await?;
        Ok(daemon)
    }

    /// Ends it as a crash would.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it anew after it was killed, with what it left.
    pub(super) async fn restart(&mut self) -> Result<(), Failure> {
        let logged = fs::metadata(&self.log)?.len();
        self.child = spawn(&mut self.command)?;
        self.serve(logged).await
    }

    /// Fails if it ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    /// Waits until it says so after the first `logged` bytes of its log.
    async fn serve(&mut self, logged: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.check()?;
            let log = fs::read(&self.log)?;
            if String::from_utf8_lossy(&log[logged as usize..]).contains(self.serves) {
                return Ok(());
            }
            sleep(TICK).await;
        }
        Err(Failure::Run(format!("{} does not serve within 10 s", self.name)))
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it says nothing");
        Failure::Run(format!("{} ended by itself ({status}): {last}", self.name))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn spawn(command: &mut Command) -> Result<Child, Failure> {
    command.spawn().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        Failure::Setup(format!("cannot start {program}: {error}; install or build it first"))
    })
}

/// How long a start may take: more than to read the data again.
const PATIENCE: Duration = Duration::from_secs(10);

const TICK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::directory::Directory;

    async fn start(directory: &Directory, script: &str) -> Result<Daemon, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Daemon::start("it".to_owned(), command, directory.path().join("log"), "ready").await
    }

    fn is_there(daemon: &Daemon) -> bool {
        fs::exists(format!("/proc/{}", daemon.child.id())).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_that_was_killed_is_started_again_and_waited_for_again() {
        let directory = Directory::new().unwrap();
        let mut daemon = start(&directory, "echo ready; exec sleep 60").await.unwrap();
        daemon.check().unwrap();
        daemon.kill().unwrap();
        assert!(!is_there(&daemon) && daemon.check().is_err());
        daemon.restart().await.unwrap();
        assert!(is_there(&daemon));
        let log = fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(log, "ready\nready\n");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_that_ends_by_itself_is_found_with_its_last_words() {
        let directory = Directory::new().unwrap();
        let failure = start(&directory, "echo no; exit 3").await.unwrap_err().to_string();
        assert_eq!(failure, "it ended by itself (exit status: 3): no");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_left_of_one_that_is_dropped() {
        let directory = Directory::new().unwrap();
        let daemon = start(&directory, "echo ready; exec sleep 60").await.unwrap();
        let process = format!("/proc/{}", daemon.child.id());
        drop(daemon);
        assert!(!fs::exists(process).unwrap());
    }
}
