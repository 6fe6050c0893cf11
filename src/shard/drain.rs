//! The end of a shard: its connections are told to go elsewhere.

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use crate::close::CloseReason;
use crate::config::Drain;

/// Once the hub drains, closes all with 3001, spread so that they do not all return at once.
pub(super) async fn run(shard: Rc<Shard>) {
    shard.hub.draining().await;
    let Drain { spread, timeout } = shard.hub.config.drain;
    // What was admitted comes before the close; a shard that hangs leaves the others half the time.
    let _ = tokio::time::timeout(timeout / 2, shard.hub.flushed()).await;
    let ticks = (spread.as_millis() / TICK.as_millis()).max(1) as usize;
    let mut left = ticks;
    let mut due = 0.0;
    loop {
        // Those who were in the handshake when it began come later, and have less time.
        due += shard.connections.slots().len() as f64 / left as f64;
        // Of fewer than there are ticks not every tick closes one.
        close_some(&shard, due as usize);
        due = due.fract();
        left = (left - 1).max(1);
        tokio::time::sleep(TICK).await;
    }
}

fn close_some(shard: &Shard, most: usize) {
    let slots = shard.connections.slots();
    let group: Vec<_> = slots.iter().take(most).map(|(_, open)| open.clone()).collect();
    drop(slots);
    for connection in group {
        shard.close(&connection, &CloseReason::SHUTDOWN);
    }
}

/// Time between two groups.
const TICK: Duration = Duration::from_millis(20);
