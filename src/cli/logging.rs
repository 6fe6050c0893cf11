//! Log lines to standard error, through a queue that never blocks.

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Whether a filter is one.
pub(crate) fn check(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter)
        .map_err(|error| format!("log.filter: {filter:?} is not allowed: {error}"))
}

/// Logs from now on. Lines that find the queue full are dropped and counted: a standard error
/// that nobody reads must never stop a shard.
pub(crate) fn start(filter: &str) -> Result<Log, String> {
    let filter = check(filter)?;
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).init();
    Ok(Log { dropped, _worker: worker })
}

/// Flushes when dropped, for as long as that takes but a second at most.
pub(crate) struct Log {
    dropped: ErrorCounter,
    _worker: WorkerGuard,
}

impl Drop for Log {
    fn drop(&mut self) {
        let lines = self.dropped.dropped_lines();
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped, as standard error was not read");
        }
    }
}

/// Lines that wait to be written; some megabytes at most.
const LINES_MAX: usize = 8192;
