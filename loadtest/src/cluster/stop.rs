//! Signals that end a run early.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves once somebody wants the run to end; without it the load tester would go at once, and what it
/// started would stay.
pub(super) async fn wanted() -> io::Result<()> {
    let [mut interrupt, mut terminate, mut hangup] = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
