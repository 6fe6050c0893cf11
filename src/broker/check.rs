//! A look, now and then, at whether what nobody heard of was published all the same: a stream that has had
//! for a while what its channel does not have yet is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Failure, Read, Session, Stream};
use super::{Broker, follow};
use crate::channel::history::Position;
use crate::hub::Inner;

/// Where streams stood at the last look.
#[derive(Debug, Default)]
pub(super) struct Check {
    stood: HashMap<Arc<str>, Position>,
}

impl Check {
    /// Looks at every channel that counts as current, which also keeps the places of quiet streams.
    pub(super) async fn run(
        &mut self,
        hub: &Inner,
        broker: &Broker,
        session: &Session,
    ) -> Result<(), Failure> {
        let names: Vec<_> = hub.channels.names().flatten().collect();
        let mut stand = HashMap::with_capacity(names.len());
        for names in names.chunks(follow::READS) {
            let reads = names.iter().filter_map(|name| {
                let from = Some(place(hub, name)?);
                Some(Read { channel: name.clone(), from })
            });
            let reads: Vec<_> = reads.collect();
            let streams = session.read(reads.iter()).await?;
            for (Read { channel, .. }, stream) in reads.into_iter().zip(streams) {
                let Ok(Stream { position, .. }) = stream else { continue };
                let stood = self.stood.get(&channel);
                let lacks = stood.is_some_and(|stood| lacks(hub, &channel, stood));
                if lacks || is_of_another(hub, &channel, &position) {
                    hub.channels.with(&channel, |_, state| {
                        if let Some(mirror) = &mut state.mirror {
                            mirror.fall_behind();
                        }
                    });
                    broker.channels.add(channel.clone());
                }
                stand.insert(channel, position);
            }
        }
        self.stood = stand;
        Ok(())
    }
}

/// Where a channel stands that has a stream and counts as current.
fn place(hub: &Inner, name: &str) -> Option<Position> {
    let is_open = hub.config.namespace(name)?.window().is_open();
    hub.channels.with(name, |_, state| {
        let is_current = state.mirror.as_ref().is_some_and(|mirror| mirror.is_current());
        (is_open && is_current).then(|| state.history.position())
    })?
}

/// Whether a channel does not have now what its stream had at the last look.
fn lacks(hub: &Inner, name: &str, stood: &Position) -> bool {
    place(hub, name).is_some_and(|here| here.epoch == stood.epoch && here.offset < stood.offset)
}

/// Whether its stream is another by now.
fn is_of_another(hub: &Inner, name: &str, position: &Position) -> bool {
    place(hub, name).is_some_and(|here| here.epoch != position.epoch)
}

/// Time between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(20);
