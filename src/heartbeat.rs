//! The sweep: one timer for all of a shard's connections.
//!
//! A slice of them is looked at each tick, all of them once a round. It pings, closes those that are
//! dead, stalled, expired or never finish a message, and with each ping looks whether a subscription
//! lacks something.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::clock::{Millis, millis};
use crate::close::CloseReason;
use crate::config::Config;
use crate::connection::Connection;
use crate::frame::{self, Opcode};
use crate::message::Encoding;
use crate::outbox::Burst;
use crate::protocol::{centrifuge, sse};
use crate::shard::Shard;

/// Sweeps for as long as the shard lives.
pub(crate) async fn run(shard: Rc<Shard>) {
    let tick = round(&shard.hub.config) / SLICES;
    let mut sweep = Sweep::new(&shard.hub.config);
    loop {
        let due = Instant::now() + tick;
        tokio::time::sleep_until(due.into()).await;
        let late = due.elapsed();
        if late > LATE {
            shard.clock.forgive(late);
            // What readers find may be the very sign of life that is missed.
            for _ in 0..READER_TURNS {
                tokio::task::yield_now().await;
            }
        }
        sweep.slice(&shard);
        shard.cut_overdue();
        while shard.unsettled.borrow_mut().settle_due(&shard.hub) {
            tokio::task::yield_now().await;
        }
        shard.hub.tell_count();
        shard.hub.channels.sweep(Instant::now());
        shard.relieve();
    }
}

/// Time in which every connection is looked at once: a quarter of the shortest deadline.
fn round(config: &Config) -> Duration {
    let shortest = config
        .heartbeat
        .interval
        .min(config.heartbeat.timeout)
        .min(config.limits.outbox_age)
        .min(config.limits.message_timeout)
        .min(config.limits.close_timeout);
    (shortest / 4).clamp(ROUND_MIN, ROUND_MAX)
}

/// Where a round stands, and the deadlines in the shard's unit.
#[derive(Debug)]
struct Sweep {
    next: usize,
    interval: Millis,
    timeout: Millis,
    outbox_age: Millis,
    message_timeout: Millis,
}

impl Sweep {
    fn new(config: &Config) -> Self {
        Self {
            next: 0,
            interval: millis(config.heartbeat.interval),
            timeout: millis(config.heartbeat.timeout),
            outbox_age: millis(config.limits.outbox_age),
            message_timeout: millis(config.limits.message_timeout),
        }
    }

    /// Looks at the next slice of slots.
    fn slice(&mut self, shard: &Shard) {
        let (now, wall) = (shard.clock.now(), SystemTime::now());
        let (mut verdicts, mut expiring, mut pinged) = (Vec::new(), Vec::new(), Vec::new());
        let slots = shard.connections.slots();
        let end = self.next + slots.capacity().div_ceil(SLICES as usize).max(SLICE_MIN);
        for connection in (self.next..end).filter_map(|slot| slots.get(slot)) {
            match self.judge(connection, now, wall) {
                Some(reason) => verdicts.push((connection.clone(), reason)),
                None if self.ping(shard, connection, now) => pinged.push(connection.clone()),
                None => {}
            }
            let expires = connection.life.subscription_expires.get();
            if expires.is_some_and(|expires| expires <= wall) {
                expiring.push(connection.clone());
            }
        }
        self.next = if end >= slots.capacity() { 0 } else { end };
        drop(slots);
        for (connection, reason) in verdicts {
            shard.close(&connection, &reason);
        }
        for connection in expiring {
            shard.expire_subscriptions(&connection, wall);
        }
        for connection in pinged {
            shard.check_positions(&connection);
        }
    }

    /// Why a connection must close, if it must.
    fn judge(&self, connection: &Connection, now: Millis, wall: SystemTime) -> Option<CloseReason> {
        let life = &connection.life;
        if life.expires.get().is_some_and(|expires| expires <= wall) {
            return Some(CloseReason::EXPIRED);
        }
        let is_over = |since: Millis, limit| now.saturating_sub(since) > limit;
        if connection.outbox.borrow().oldest().is_some_and(|at| is_over(at, self.outbox_age)) {
            return Some(CloseReason::SLOW);
        }
        if life.is_paused.get() {
            return None;
        }
        if (1..=now).contains(&life.stale_at.get()) {
            return Some(CloseReason::STALE);
        }
        let unfinished = life.unfinished.get();
        if unfinished > 0 && is_over(unfinished, self.message_timeout) {
            return Some(CloseReason::BAD_REQUEST);
        }
        let pinged = life.pinged.get();
        (pinged > 0 && is_over(pinged, self.timeout)).then_some(CloseReason::NO_PONG)
    }

    /// Pings a connection whose time it is; says whether it was.
    fn ping(&self, shard: &Shard, connection: &Connection, now: Millis) -> bool {
        // A Ping that is not answered keeps its deadline, which another would move on.
        let life = &connection.life;
        if now < life.ping_due.get() || life.pinged.get() > 0 {
            return false;
        }
        life.ping_due.set(now + self.interval);
        if connection.encoding == Encoding::Sse {
            // Its peer cannot answer, so no answer is waited for.
            let comment = Burst::lone(sse::HEARTBEAT.into(), now, &shard.budget);
            connection.outbox.borrow_mut().push_control(&comment);
            return true;
        }
        let is_own = connection.encoding == Encoding::Centrifuge && !life.has_frame_pings.get();
        life.awaits_pong.set(is_own);
        let frame = if is_own {
            frame::encode(Opcode::Text, centrifuge::PING.as_bytes())
        } else {
            frame::encode(Opcode::Ping, b"")
        };
        let ping = Burst::ping(frame, now, &shard.budget);
        connection.outbox.borrow_mut().push_control(&ping);
        true
    }
}

/// Slices of a round.
const SLICES: u32 = 10;

/// Slots looked at even in the smallest slice.
const SLICE_MIN: usize = 16;

/// Bounds of a round: often enough for short deadlines, seldom enough to idle.
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Lateness of a tick that a busy but healthy shard may show.
const LATE: Duration = Duration::from_millis(100);

/// Turns that readers get before a late sweep judges: to learn what is readable, to read, and one
/// for those that such a turn woke.
const READER_TURNS: usize = 3;
