//! Finds what was lost on its way: a stream that was ahead of its mirror already at the last look is read
//! again. The look also keeps the positions of quiet streams, and who is on their channels, from being
//! forgotten.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Failure, Session, Watched};
use crate::channel::history::Position;
use crate::hub::Inner;

/// Looks for as long as the session lasts.
pub(super) async fn run(hub: &Inner, session: &Session) -> Result<Infallible, Failure> {
    let mut stood: HashMap<Arc<str>, Position> = HashMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let mut stands = HashMap::with_capacity(stood.len());
        let names: Vec<_> = hub.channels.names().flatten().collect();
        for names in names.chunks(BATCH) {
            let watched: Vec<_> = names.iter().filter_map(|name| watched(hub, name)).collect();
            for (Watched { channel, .. }, position) in
                watched.iter().zip(session.positions(&watched).await?)
            {
                let Ok(position) = position else { continue };
                if is_behind(hub, channel, &position, stood.get(channel)) {
                    hub.doubt_channel(channel);
                }
                stands.insert(channel.clone(), position);
            }
        }
        stood = stands;
    }
}

/// A channel of which the broker keeps something.
fn watched(hub: &Inner, name: &Arc<str>) -> Option<Watched> {
    let namespace = hub.config.namespace(name)?;
    let window = namespace.window();
    let is_kept = window.is_open() || namespace.counts_presence();
    is_kept.then(|| Watched { channel: name.clone(), ttl: window.ttl })
}

/// Whether a channel counts as current and has not what its stream had at the last look, or the stream is
/// another one by now.
fn is_behind(hub: &Inner, name: &str, stands: &Position, stood: Option<&Position>) -> bool {
    if !hub.config.namespace(name).is_some_and(|namespace| namespace.window().is_open()) {
        return false;
    }
    let is_behind = hub.channels.with(name, |_, state| {
        let is_current = state.mirror.as_ref().is_some_and(|mirror| mirror.is_current());
        let here = state.history.position();
        let lacks = |stood: &Position| stood.epoch == here.epoch && stood.offset > here.offset;
        is_current && (stands.epoch != here.epoch || stood.is_some_and(lacks))
    });
    is_behind.unwrap_or(false)
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(20);

/// Streams that are asked about at once.
const BATCH: usize = 256;
