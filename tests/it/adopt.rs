use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fanfare::server::{AdoptError, accept_upgrade, adopt};
use fanfare::{CloseReason, Hub, Identity, UserId};

use crate::embedder::{Embedder, serve};
use crate::support::*;

#[test]
fn a_connection_that_hyper_upgraded_is_one_of_the_hubs() {
    let server = TestServer::start();
    let embedder = Embedder::start(&server.hub);
    let mut ada = server.connect(1);
    let mut adopted = embedder.open();
    takes_part(&server, &mut ada, &mut adopted);
}

#[test]
fn a_connection_that_axum_upgraded_is_one_of_the_hubs() {
    let server = TestServer::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(any(connect)).with_state(server.hub.clone());
    runtime.spawn(async { axum::serve(listener, app).await });
    let mut ada = server.connect(1);
    let mut adopted = Peer::new(std::net::TcpStream::connect(address).unwrap());
    adopted.send(handshake("/", "").as_bytes());
    assert!(adopted.read_head().starts_with("HTTP/1.1 101 "));
    takes_part(&server, &mut ada, &mut adopted);
}

#[test]
fn frames_behind_an_embedders_handshake_are_not_lost() {
    let server = TestServer::start();
    let embedder = Embedder::start(&server.hub);
    let mut peer = Peer::new(std::net::TcpStream::connect(embedder.address).unwrap());
    let ping = frame(FIN | TEXT, br#"{"type":"ping"}"#);
    peer.send(&[handshake("/", "").as_bytes(), &ping, &ping[..4]].concat());
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    peer.send(&ping[4..]);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
}

#[test]
fn an_adopted_connection_outlives_the_runtime_it_came_from() {
    let server = TestServer::start();
    let embedder = Embedder::start(&server.hub);
    let mut peer = embedder.open();
    embedder.outcomes.recv().unwrap().unwrap();
    drop(embedder);
    peer.send_text(r#"{"type":"ping"}"#);
    assert_eq!(peer.read_text(), r#"{"type":"pong"}"#);
    server.hub.disconnect_user(&UserId::from(7), CloseReason::NORMAL).wait().unwrap();
    assert_eq!(peer.read_close(), (1000, String::new()));
}

#[test]
fn what_is_not_tcp_is_refused_with_a_clear_error() {
    let server = TestServer::start();
    let embedder = Embedder::start(&server.hub);
    let (ours, theirs) = tokio::io::duplex(4096);
    let (outcome, outcomes) = std::sync::mpsc::channel();
    let take = |hub: &Hub, upgraded| adopt(hub, upgraded, Identity::new(UserId::from(7)));
    embedder.runtime.spawn(serve(theirs, server.hub.clone(), take, outcome));
    let (_read, mut write) = tokio::io::split(ours);
    embedder.runtime.block_on(async {
        tokio::io::AsyncWriteExt::write_all(&mut write, handshake("/", "").as_bytes())
            .await
            .unwrap();
    });
    let error = outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(error, AdoptError::NotTcp));
    assert!(error.to_string().contains("tls"), "{error}");
    assert_eq!(server.hub.connections(), 0);
}

#[test]
fn a_handshake_that_is_none_tells_the_status_to_answer() {
    let server = TestServer::start();
    let embedder = Embedder::start(&server.hub);
    let whole = handshake("/", "");
    for (request, status) in [
        (whole.replace("GET", "POST"), 405),
        (whole.replace("upgrade: websocket", "x: y"), 426),
        (whole.replace("version: 13", "version: 7"), 426),
        (whole.replace("dGhl", ""), 400),
    ] {
        let mut peer = Peer::new(std::net::TcpStream::connect(embedder.address).unwrap());
        peer.send(request.as_bytes());
        assert_eq!(peer.read_answer().0, status);
    }
}

#[test]
fn adopted_connections_count_against_the_limit() {
    let server = TestServer::with(|config| config.limits.connections = Some(1));
    let embedder = Embedder::start(&server.hub);
    let _first = embedder.open();
    embedder.outcomes.recv().unwrap().unwrap();
    let mut second = embedder.open();
    let error = embedder.outcomes.recv().unwrap().unwrap_err();
    assert!(matches!(error, AdoptError::Full), "{error}");
    assert!(second.is_cut());
}

#[test]
fn a_hub_that_drains_adopts_no_one() {
    let mut server = TestServer::start();
    let hub = server.hub.clone();
    let embedder = Embedder::start(&hub);
    server.shut_down();
    server.join();
    let mut peer = embedder.open();
    let error = embedder.outcomes.recv().unwrap().unwrap_err();
    assert!(matches!(error, AdoptError::Closed), "{error}");
    assert!(peer.is_cut());
}

/// Both ways, by user and to all.
fn takes_part(server: &TestServer, ada: &mut Peer, adopted: &mut Peer) {
    adopted.send_text(r#"{"type":"message","body":"hi"}"#);
    let expected = r#"{"type":"message","user_id":7,"name":"User 7","body":"hi"}"#;
    assert_eq!(ada.read_text(), expected);
    assert_eq!(adopted.read_text(), expected);
    assert_eq!(server.hub.connections(), 2);
    assert_eq!(server.hub.send_to_user(&UserId::from(7), "to 7").wait(), Ok(1));
    assert_eq!(adopted.read_text(), "to 7");
}

async fn connect(State(hub): State<Hub>, mut request: Request) -> Response {
    let response = match accept_upgrade(&request) {
        Ok(response) => response,
        Err(error) => return (error.status(), error.to_string()).into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        adopt(&hub, upgrade.await.unwrap(), Identity::new(UserId::from(7))).unwrap();
    });
    response.map(Body::new)
}
