//! [`Sentinels`]: a primary, its replica, and three that make the one of the other.

use std::net::SocketAddr;

use crate::daemon::Daemon;
use crate::peer::wait_until;
use crate::process::program;
use crate::redis::{Redis, cli};

/// Two servers of Redis and three sentinels, of whom two must agree; the primary is called
/// [`NAME`].
pub struct Sentinels {
    servers: [Redis; 2],
    sentinels: [Daemon; 3],
}

impl Sentinels {
    /// The replica is in sync when this returns, and each sentinel knows everybody.
    pub fn start() -> Self {
        let primary = Redis::with(&AT_ONCE);
        let port = primary.port().to_string();
        let of_primary = ["--replicaof", "127.0.0.1", port.as_str()];
        let replica = Redis::with(&[&AT_ONCE[..], &of_primary].concat());
        wait_until("the replica is in sync", || {
            primary.cli(&["info", "replication"]).contains("state=online")
        });
        let sentinels = [(); 3].map(|()| sentinel(primary.port()));
        wait_until("each sentinel knows everybody", || sentinels.iter().all(knows_everybody));
        Self { servers: [primary, replica], sentinels }
    }

    /// Where the sentinels are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(Daemon::address).collect()
    }

    /// The primary's port, as a sentinel tells it: for a while, that of a dead one.
    pub fn primary_port(&self) -> u16 {
        let address = cli(self.sentinels[0].port(), &["sentinel", "get-master-addr-by-name", NAME]);
        address.lines().nth(1).unwrap().parse().unwrap()
    }

    /// Kills the primary; it takes about two seconds until there is another.
    pub fn kill_primary(&mut self) {
        let port = self.primary_port();
        self.servers.iter_mut().find(|it| it.port() == port).unwrap().kill();
    }
}

fn sentinel(primary: u16) -> Daemon {
    Daemon::start("Sentinel ID is", move |port, directory| {
        let file = directory.join("sentinel.conf");
        let settings = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\n\
             sentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 2000\n",
            directory.display()
        );
        std::fs::write(&file, settings).unwrap();
        let mut command = program("redis-sentinel");
        command.arg(file);
        command
    })
}

fn knows_everybody(sentinel: &Daemon) -> bool {
    let ask = |what| cli(sentinel.port(), &["sentinel", what, NAME]);
    ask("master").contains("num-other-sentinels\n2")
        && ask("replicas").contains("master-link-status\nok")
}

/// What sentinels call the primary.
pub const NAME: &str = "mymaster";

/// A replica's first copy does not wait for another replica that might want one.
const AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_the_primary_is_killed_its_replica_takes_over_with_the_data() {
        let mut sentinels = Sentinels::start();
        let killed = sentinels.primary_port();
        assert_eq!(cli(killed, &["set", "key", "value"]), "OK");
        wait_until("the replica has it", || {
            sentinels.servers.iter().all(|it| it.cli(&["get", "key"]) == "value")
        });
        sentinels.kill_primary();
        wait_until("there is another primary", || sentinels.primary_port() != killed);
        assert_eq!(cli(sentinels.primary_port(), &["get", "key"]), "value");
        for address in sentinels.addresses() {
            assert_eq!(cli(address.port(), &["ping"]), "PONG");
        }
    }
}
