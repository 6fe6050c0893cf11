//! A thread for what hooks do besides deciding, so that no shard does it.

use std::io;
use std::sync::{Arc, mpsc};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::hub::Inner;

/// The thread that tells notices and does what I/O hooks have.
#[derive(Debug)]
pub(crate) struct Courier {
    runtime: Handle,
    hub: oneshot::Sender<Arc<Inner>>,
}

impl Courier {
    /// Starts the thread, which ends with the courier, or with the hub that it is given.
    pub(crate) fn start() -> io::Result<Self> {
        let (started, runtime) = mpsc::sync_channel(1);
        let (hub, given) = oneshot::channel();
        std::thread::Builder::new().name("hooks".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = started.send(Ok(runtime.handle().clone()));
                    runtime.block_on(carry(given));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let runtime = runtime.recv();
        let runtime = runtime.unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")));
        Ok(Self { runtime: runtime?, hub })
    }

    /// Where hooks may have their work done.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Has a hub's notices told until it stops.
    pub(crate) fn serve(self, hub: &Arc<Inner>) {
        // The thread waits for it and for nothing else.
        let _ = self.hub.send(hub.clone());
    }
}

async fn carry(given: oneshot::Receiver<Arc<Inner>>) {
    let Ok(hub) = given.await else { return };
    let Some(application) = &hub.application else { return };
    tokio::select! {
        () = application.tell() => {}
        () = hub.stopped() => {}
    }
}
