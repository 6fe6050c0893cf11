//! Ports at which a server may be started again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

/// Looks for ports that nobody listens at.
#[derive(Debug)]
pub(super) struct Ports(u16);

impl Ports {
    /// Begins elsewhere than other load testers that run beside this one.
    pub(super) fn new() -> Self {
        let start = std::process::id().wrapping_mul(37) % RANGE.len() as u32;
        Self(start as u16)
    }

    /// A free one, and never twice the same.
    pub(super) fn next(&mut self) -> io::Result<SocketAddr> {
        for _ in RANGE {
            let address = (Ipv4Addr::LOCALHOST, RANGE.start + self.0).into();
            self.0 = (self.0 + 1) % RANGE.len() as u16;
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        let text =
            format!("no port from {} to {} is free; stop what uses them", RANGE.start, RANGE.end);
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    }
}

/// Below those that Linux gives to outgoing connections, one of which would else take the port of a node
/// while it is down.
const RANGE: Range<u16> = 20_000..32_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let mut ports = Ports(0);
        let first = ports.next().unwrap();
        let _taken = TcpListener::bind(first).unwrap();
        let again = Ports(0).next().unwrap();
        assert!(again.port() > first.port());
        assert_ne!(ports.next().unwrap(), first);
    }
}
