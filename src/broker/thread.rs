//! The thread that talks to the broker.

use std::io;
use std::sync::{Arc, mpsc};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::engine::{ConnectError, Connector};
use super::serve;
use super::{Broker, Requests};
use crate::config::Config;
use crate::hub::Inner;

/// A broker's thread that is connected, and waits for its hub.
#[derive(Debug)]
pub(crate) struct BrokerThread(oneshot::Sender<Arc<Inner>>);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThreadError {
    #[error("the system gives no thread or reactor: {0}")]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl BrokerThread {
    /// Connects to the broker that is set, if one is. The thread ends with this, or with the hub
    /// that it is given.
    pub(crate) fn start(config: &Config, uid: &str) -> Result<Option<(Broker, Self)>, ThreadError> {
        let Some(connector) = Connector::new(config, uid)? else { return Ok(None) };
        let (broker, requests) = Broker::new(config, uid);
        let (connected, outcome) = mpsc::sync_channel(1);
        let (hub, given) = oneshot::channel();
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(carry(&connector, requests, &connected, given)),
                Err(error) => drop(connected.send(Err(error.into()))),
            }
        })?;
        let ended = || Err(io::Error::other("the thread ended at once").into());
        outcome.recv().unwrap_or_else(|_| ended())?;
        Ok(Some((broker, Self(hub))))
    }

    /// Serves a hub until it stops.
    pub(crate) fn serve(self, hub: &Arc<Inner>) {
        // The thread waits for it and for nothing else.
        let _ = self.0.send(hub.clone());
    }
}

/// Aborts the process if the thread panics: a node that hears nothing must not look healthy.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the broker's thread ended; aborting");
            std::process::abort();
        }
    }
}

async fn carry(
    connector: &Connector,
    requests: Requests,
    outcome: &mpsc::SyncSender<Result<(), ThreadError>>,
    given: oneshot::Receiver<Arc<Inner>>,
) {
    let connected = match connector.connect().await {
        Ok(connected) => connected,
        Err(error) => return drop(outcome.send(Err(error.into()))),
    };
    let _ = outcome.send(Ok(()));
    let Ok(hub) = given.await else { return };
    let _vital = Vital;
    tokio::select! {
        () = serve::run(&hub, connector, requests, connected) => {}
        () = hub.stopped() => {}
    }
}
