//! What the tests run: a server, and the load tester.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::Duration;

use fanfare::Config;
use fanfare::config::{Announce, Secret};
use serde_json::Value;
use tokio::sync::oneshot;

/// A server on a thread of its own, drained when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one, with settings of the test's own.
    pub(crate) fn start(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.auth.hmac_secret = Some(Secret::new(SECRET));
        config.api.key = Some(Secret::new(API_KEY));
        config.server.shards = 1;
        config.chat.announce = Announce::Off;
        config.drain.spread = Duration::ZERO;
        set(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let shutdown = async { signal.await.unwrap_or(()) };
            runtime.unwrap().block_on(fanfare::serve(listener, config, shutdown)).unwrap();
        });
        Self { address, shutdown: Some(shutdown), thread: Some(thread) }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs a command to its end in order; returns its report.
    pub(crate) fn report(&self, command: &str, options: &[&str]) -> Value {
        let (url, pid) = (self.url(), std::process::id().to_string());
        let mut arguments = vec![command, "--url", &url, "--pid", &pid, "--json"];
        arguments.extend(options);
        if command == "fanout" {
            arguments.extend(["--settle", "0s", "--warmup", "100ms", "--duration", "500ms"]);
        }
        let output = loadtest(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert_eq!(said, "", "nothing is said without a terminal");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Runs the load tester to its end.
pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    // For the nats-server of this checkout.
    let environment = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin");
    Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"))
        .args(arguments)
        .env("PATH", format!("{environment}:{}", std::env::var("PATH").unwrap()))
        .env("FANFARE_AUTH_HMAC_SECRET", SECRET)
        .env("FANFARE_API_KEY", API_KEY)
        .output()
        .unwrap()
}

const SECRET: &str = "a secret of at least thirty-two bytes";
const API_KEY: &str = "an api key of its own";
