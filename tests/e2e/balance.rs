//! The examples' settings, but for ports, descriptors, and idle time-outs: these are shorter, and
//! still over the settings of fanfare that they must exceed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ports::free_port;
use crate::support::{Service, fanfare, node, path, program, run, wait_until};

#[test]
fn heartbeats_keep_idle_peers_through_the_time_outs_of_balancers() {
    behind_each(&[], |cluster| cluster.play("idle", "4"));
}

#[test]
fn peers_without_a_heartbeat_in_time_are_cut_by_balancers() {
    behind_each(&[("HEARTBEAT_INTERVAL", "1h")], |cluster| cluster.play("cut", ""));
}

#[test]
fn an_event_passes_balancers_at_once() {
    behind_each(&[("HEARTBEAT_INTERVAL", "1h")], |cluster| cluster.play("event", ""));
}

#[test]
fn a_stream_behind_balancers_ends_with_its_peer() {
    behind_each(&[("HEARTBEAT_INTERVAL", "1h")], |cluster| {
        cluster.play("event", "");
        let gone = Instant::now();
        cluster.expect([0, 0]);
        assert!(gone.elapsed() < Duration::from_secs(1), "it was a time-out that ended it");
    });
}

#[test]
fn what_is_internal_is_not_behind_balancers() {
    behind_each(&[], |cluster| {
        for path in ["/api/info", "/metrics", "/health", "/ready"] {
            let url = format!("{}{path}", cluster.balancer.url);
            let status = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
            assert_eq!(run(&program("curl", &status)), "404", "{path}");
        }
    });
}

#[test]
fn clients_of_a_killed_node_come_back_on_the_other() {
    behind_each(&[], |cluster| {
        let _crowd = cluster.crowd("10");
        cluster.expect([5, 5]);
        cluster.nodes[0].service.signal(Signal::KILL);
        cluster.nodes[1].expect(10);
    });
}

#[test]
fn a_handshake_that_a_dying_node_has_not_taken_goes_to_the_other() {
    behind_each(&[], |cluster| {
        cluster.nodes[0].service.signal(Signal::STOP);
        let crowd = cluster.client("crowd", "10");
        let crowd = std::thread::spawn(|| Service::start(crowd));
        cluster.nodes[1].expect(5);
        cluster.nodes[0].service.signal(Signal::KILL);
        let _crowd = crowd.join().unwrap();
        cluster.nodes[1].expect(10);
    });
}

#[test]
fn a_draining_node_gets_nobody_new() {
    behind_each(LONG_DRAIN, |cluster| {
        let _crowd = cluster.crowd("10");
        cluster.expect([5, 5]);
        let _laggard = cluster.nodes[0].laggard();
        cluster.nodes[0].service.signal(Signal::TERM);
        cluster.nodes[0].service.expect_line("draining");
        let _more = cluster.crowd("6");
        cluster.nodes[1].expect(16);
        assert!(!cluster.nodes[0].service.has_ended());
    });
}

#[test]
fn restarts_of_one_node_after_the_other_refuse_nobody() {
    behind_each(&[], |cluster| {
        let _crowd = cluster.crowd("10");
        cluster.expect([5, 5]);
        cluster.nodes[0].stop();
        cluster.nodes[1].expect(10);
        cluster.nodes[0].start_again();
        let _more = cluster.crowd("6");
        cluster.expect([6, 10]);
        cluster.nodes[1].stop();
        cluster.nodes[0].expect(16);
    });
}

#[test]
fn haproxy_takes_a_node_out_when_it_drains_and_back_when_it_is_ready() {
    let mut cluster = Cluster::start(haproxy, LONG_DRAIN);
    let laggard = cluster.nodes[0].laggard();
    cluster.nodes[0].service.signal(Signal::TERM);
    cluster.balancer.expect_line("node1 is DOWN");
    assert!(!cluster.nodes[0].service.has_ended());
    drop(laggard);
    cluster.nodes[0].stop();
    cluster.nodes[0].start_again();
    cluster.balancer.expect_line("node1 is UP, reason: Layer7 check passed, code: 200");
}

#[test]
fn without_a_node_balancers_cut_and_answer_nothing() {
    behind_each(&[], |cluster| {
        for node in &cluster.nodes {
            node.service.signal(Signal::KILL);
        }
        let ask = format!("curl --silent {}/sse; echo $?", cluster.balancer.url);
        // curl's exit code for an empty reply, again when the balancer knows that there is no node.
        for _ in 0..2 {
            assert_eq!(run(&program("sh", &["-c", &ask])), "52\n");
        }
    });
}

/// Settings beside a node's own here, each without its `FANFARE_`.
type Variables = &'static [(&'static str, &'static str)];

/// For as long as a peer that answers no Close is waited for.
const LONG_DRAIN: Variables = &[("LIMITS_CLOSE_TIMEOUT", "20s"), ("DRAIN_TIMEOUT", "20s")];

/// Two nodes that do not know of each other, and a balancer in front.
struct Cluster {
    balancer: Service,
    nodes: [Node; 2],
    _directory: Directory,
}

impl Cluster {
    fn start(balancer: Balancer, variables: Variables) -> Self {
        let [public, ports @ ..] = [(); 5].map(|()| free_port());
        let nodes = [[ports[0], ports[1]], [ports[2], ports[3]]];
        let directory = Directory::new(public);
        let command = balancer(public, nodes, &directory.0);
        let nodes = nodes.map(|ports| Node::start(ports, variables));
        let balancer = Service::start_at(SocketAddr::from(([127, 0, 0, 1], public)), command);
        Self { balancer, nodes, _directory: directory }
    }

    /// Has clients play a scenario to its end.
    fn play(&self, scenario: &str, argument: &str) {
        run(&self.client(scenario, argument));
    }

    /// So many clients that stay, and come back after every end; no handshake of theirs may fail.
    fn crowd(&self, size: &str) -> Service {
        Service::start(self.client("crowd", size))
    }

    fn client(&self, scenario: &str, argument: &str) -> Command {
        let mut client = node("balance.mjs", &[scenario, argument]);
        client.env("FANFARE_NODES", self.nodes.each_ref().map(Node::internal_url).join(" "));
        self.balancer.tell(client)
    }

    fn expect(&self, connections: [usize; 2]) {
        for (node, connections) in self.nodes.iter().zip(connections) {
            node.expect(connections);
        }
    }
}

struct Node {
    service: Service,
    ports: [u16; 2],
    variables: Variables,
}

impl Node {
    fn start(ports: [u16; 2], variables: Variables) -> Self {
        let [public, internal] = ports.map(|port| format!("127.0.0.1:{port}"));
        let mut serve = fanfare(&["serve", "--bind", &public]);
        serve.env("FANFARE_SERVER_INTERNAL_BIND", internal);
        let defaults = [
            ("HEARTBEAT_INTERVAL", "1s"),
            ("HEARTBEAT_TIMEOUT", "1s"),
            ("DRAIN_SPREAD", "100ms"),
            ("NAMESPACE_NEWS_SUBSCRIBE", "anyone"),
            ("NAMESPACE_NEWS_HISTORY_SIZE", "10"),
        ];
        for (key, value) in defaults.iter().chain(variables) {
            serve.env(format!("FANFARE_{key}"), value);
        }
        Self { service: Service::start(serve), ports, variables }
    }

    fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// Has it drain, and waits for its end.
    fn stop(&mut self) {
        self.service.signal(Signal::TERM);
        wait_until("it has ended", || self.service.has_ended());
    }

    fn start_again(&mut self) {
        *self = Self::start(self.ports, self.variables);
    }

    /// A peer that answers no Close, and so holds up a drain.
    fn laggard(&self) -> TcpStream {
        let mut peer = TcpStream::connect(("127.0.0.1", self.ports[0])).unwrap();
        let handshake = "GET /connection/websocket HTTP/1.1\r\nhost: x\r\n\
            connection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        peer.write_all(handshake.as_bytes()).unwrap();
        let mut status = [0; 12];
        peer.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 101");
        peer
    }

    /// Waits until it has so many connections.
    fn expect(&self, connections: usize) {
        let line = format!("\nfanfare_connections {connections}\n");
        let url = format!("{}/metrics", self.internal_url());
        wait_until(&line, || run(&program("curl", &["--silent", &url])).contains(&line));
    }
}

/// What makes the command of a balancer, from its public port, the ports of the nodes and a
/// directory for its files.
type Balancer = fn(u16, [[u16; 2]; 2], &Path) -> Command;

fn nginx(public: u16, nodes: [[u16; 2]; 2], directory: &Path) -> Command {
    let [first, second] = nodes.map(|[node, _]| format!("server 127.0.0.1:{node}"));
    let file = directory.join("nginx.conf");
    let substitutes = [
        ("listen 8080", format!("listen 127.0.0.1:{public}")),
        ("server 127.0.0.1:8001", first),
        ("server 127.0.0.1:8002", second),
        ("60s", TIME_OUT.to_owned()),
    ];
    fs::write(&file, substituted("examples/nginx/nginx.conf", &substitutes)).unwrap();
    let mut command = program("/usr/sbin/nginx", &["-e", "stderr", "-g"]);
    // Workers would outlive a master that is killed.
    command.arg("daemon off; master_process off;").arg("-p").arg(directory).arg("-c").arg(file);
    command
}

fn haproxy(public: u16, nodes: [[u16; 2]; 2], directory: &Path) -> Command {
    let [first, second] =
        nodes.map(|[node, internal]| format!("127.0.0.1:{node} check port {internal}"));
    let file = directory.join("haproxy.cfg");
    let substitutes = [
        ("bind :8080", format!("bind 127.0.0.1:{public}")),
        ("127.0.0.1:8001 check port 9001", first),
        ("127.0.0.1:8002 check port 9002", second),
        ("60s", TIME_OUT.to_owned()),
        ("maxconn 10000", "maxconn 100".to_owned()),
    ];
    fs::write(&file, substituted("examples/haproxy/haproxy.cfg", &substitutes)).unwrap();
    let mut command = program("/usr/sbin/haproxy", &["-db", "-f"]);
    command.arg(file);
    command
}

/// Over the 2 s within which fanfare is heard of, or gives a peer up.
const TIME_OUT: &str = "3s";

fn substituted(example: &str, substitutes: &[(&str, String)]) -> String {
    let text = fs::read_to_string(path(example)).unwrap();
    substitutes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{example} has no {from}");
        text.replace(from, to)
    })
}

fn behind_each(variables: Variables, test: impl Fn(&mut Cluster)) {
    for balancer in [nginx as Balancer, haproxy] {
        test(&mut Cluster::start(balancer, variables));
    }
}

/// A directory that is gone with its test.
struct Directory(PathBuf);

impl Directory {
    fn new(port: u16) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("balance-{port}"));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
