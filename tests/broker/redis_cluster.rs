//! [`Cluster`]: three servers that share the keys among them.

use std::net::SocketAddr;

use crate::daemon::Daemon;
use crate::peer::wait_until;
use crate::ports::free_port;
use crate::process::{program, run};
use crate::redis::{self, cli};

/// Three primaries of a Redis Cluster, without replicas.
pub struct Cluster([Daemon; 3]);

impl Cluster {
    /// Every node can serve every key when this returns.
    pub fn start() -> Self {
        let cluster = Self([(); 3].map(|()| node()));
        let addresses = cluster.addresses().into_iter().map(|it| it.to_string());
        let mut create = program("redis-cli");
        run(create.args(["--cluster", "create", "--cluster-yes"]).args(addresses));
        wait_until("every node agrees that all are there", || {
            let mut nodes = cluster.0.iter();
            nodes.all(|it| cli(it.port(), &["cluster", "info"]).contains("cluster_state:ok"))
        });
        cluster
    }

    /// Where the nodes are, each of which knows the others.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(Daemon::address).collect()
    }
}

fn node() -> Daemon {
    Daemon::start(redis::SERVES, |port, directory| {
        let mut command = redis::server(port, directory);
        // By default the port to the other nodes is 10000 higher, which can be past the last.
        command.args(["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()]);
        command.args(["--cluster-node-timeout", "1000"]);
        command
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_at_one_node_is_found_from_every_node() {
        let cluster = Cluster::start();
        for key in ["a", "b", "c", "d"] {
            for address in cluster.addresses() {
                assert_eq!(cli(address.port(), &["-c", "set", key, "value"]), "OK");
                assert_eq!(cli(address.port(), &["-c", "get", key]), "value");
            }
        }
    }
}
