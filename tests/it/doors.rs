use std::net::{SocketAddr, TcpListener, TcpStream};

use fanfare::server::{self, Listeners, ServeError};

use crate::support::*;

#[test]
fn what_is_internal_is_at_the_internal_door_alone() {
    let server = parted();
    let internal = server.internal.unwrap();
    for path in ["/health", "/ready", "/metrics", "/"] {
        assert_eq!(ask(internal, &get(path)).0, 200, "{path}");
        let (status, answer) = ask(server.address, &get(path));
        assert_eq!(status, 404, "{path}");
        assert!(answer.contains("it is at server.internal_bind"), "{answer}");
    }
    let info = post("info", API_KEY, "{}");
    assert_eq!(ask(internal, &info).0, 200);
    let (status, answer) = ask(server.address, &info);
    assert_eq!(status, 404);
    assert!(answer.contains("it is at server.internal_bind"), "{answer}");
    assert!(!answer.contains(&internal.port().to_string()), "{answer}");
}

#[test]
fn peers_connect_at_the_public_door_alone() {
    let server = parted();
    let mut peer = server.connect(1);
    server.open_at("/connection/websocket", "");
    for path in [&format!("/ws/chat?token={}", server.token(1)), "/connection/websocket", "/sse"] {
        let (status, answer) = ask(server.internal.unwrap(), &handshake(path, ""));
        assert_eq!(status, 404, "{path}");
        assert!(answer.contains("peers connect to server.bind"), "{answer}");
    }
    let push = post("broadcast_all", API_KEY, r#"{"data":"hello"}"#);
    assert_eq!(ask(server.internal.unwrap(), &push).0, 200);
    assert_eq!(peer.read_text(), r#""hello""#);
}

#[test]
fn the_page_behind_the_internal_door_connects_to_the_public_port() {
    let server = parted();
    let (_, page) = ask(server.internal.unwrap(), &get("/"));
    assert!(page.contains(r#"data-port="0""#) && page.contains("ws://*:0"), "{page}");
    let server = TestServer::with(|config| config.server.dev = true);
    let (_, page) = ask(server.address, &get("/"));
    assert!(page.contains(r#"data-port="""#) && page.contains("connect-src 'self'"), "{page}");
}

#[test]
fn a_server_full_of_peers_still_answers_at_the_internal_door() {
    let server = TestServer::with(|config| {
        config.server.internal_bind = Some("127.0.0.1:0".parse().unwrap());
        config.limits.connections = Some(1);
    });
    let _peer = server.connect(1);
    assert_eq!(ask(server.address, &get("/")).0, 503);
    let internal = server.internal.unwrap();
    let mut askers: Vec<_> = (0..17).map(|_| dial(internal)).collect();
    for request in [get("/health"), post("info", API_KEY, "{}")] {
        askers[0].send(request.as_bytes());
        assert_eq!(askers[0].read_answer().0, 200, "{request}");
    }
    askers[16].send(get("/health").as_bytes());
    assert_eq!(askers[16].read_answer().0, 503);
}

#[test]
fn one_drain_ends_both_doors() {
    let mut server = parted();
    let (public, internal) = (server.address, server.internal.unwrap());
    let mut peer = server.connect(1);
    server.shut_down();
    assert_eq!(peer.skip_to_close().0, 3001);
    drop(peer);
    server.join();
    for address in [public, internal] {
        assert!(TcpStream::connect(address).is_err(), "{address}");
    }
}

#[test]
fn an_internal_address_that_nobody_listens_on_is_no_start() {
    let mut config = fanfare::Config::default();
    config.server.internal_bind = Some("127.0.0.1:0".parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime.block_on(server::serve(listener, config, async {}));
    assert!(matches!(served, Err(ServeError::NoInternal)), "{served:?}");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut server = fanfare::Config::default().server;
    server.bind = "127.0.0.1:0".parse().unwrap();
    server.internal_bind = Some(address);
    let error = Listeners::bind(&server).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.ends_with("; set server.internal_bind to another address"), "{error}");
}

/// A server of two doors, with the page.
fn parted() -> TestServer {
    TestServer::with(|config| {
        config.server.internal_bind = Some("127.0.0.1:0".parse().unwrap());
        config.server.dev = true;
    })
}

fn dial(address: SocketAddr) -> Peer {
    Peer::new(TcpStream::connect(address).unwrap())
}

fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut peer = dial(address);
    peer.send(request.as_bytes());
    peer.read_answer()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}
