//! Ports for servers that may end, and are started again where they were.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A port at which nobody listens, and that no other test of this process is given.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports =
        RANGE.map(|_| RANGE.start + (NEXT.fetch_add(1, Relaxed) % RANGE.len() as u32) as u16);
    ports.find(is_free).unwrap()
}

/// Processes begin apart, as others may run beside this one.
static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(37)));

/// Below those that Linux by default gives to outgoing connections, one of which would else take the port of a server
/// that is down.
const RANGE: Range<u16> = 20_000..32_000;
