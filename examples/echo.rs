//! Echoes every message: an embedder's own protocol on the library's reader and outbox, and what
//! the conformance cases of docs/reliability.md run against.
//!
//! `cargo run --release --example echo -- 127.0.0.1:9001`

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fanfare::config::Announce;
use fanfare::protocol::{Protocol, Reaction, Received};
use fanfare::server::{accept_upgrade, adopt_with};
use fanfare::{Config, Hub, Identity, Message, UserId};

struct Echo;

impl Protocol for Echo {
    fn receive(&mut self, message: Received<'_>) -> Reaction {
        Reaction::Reply(match message {
            Received::Text(text) => Message::text(text),
            Received::Binary(payload) => Message::binary(payload.to_vec()),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let mut config = Config::default();
    config.chat.announce = Announce::Off;
    // A shard, so that limits.memory holds its large outbox on any machine.
    config.server.shards = 1;
    config.limits.message_bytes = 32 << 20;
    config.limits.request_bytes = 33 << 20;
    config.limits.outbox_bytes = 128 << 20;
    config.limits.memory = 1 << 30;
    config.limits.ring_bytes = 256 << 20;
    let hub = Hub::start(config)?;

    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("echoing on ws://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(any(connect)).with_state(hub)).await?;
    Ok(())
}

async fn connect(State(hub): State<Hub>, mut request: Request) -> Response {
    let response = match accept_upgrade(&request) {
        Ok(response) => response,
        Err(error) => return (error.status(), error.to_string()).into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let identity = Identity::new(UserId::from(0));
        match upgrade.await.map(|upgraded| adopt_with(&hub, upgraded, identity, Echo)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("not adopted: {error}"),
            Err(error) => eprintln!("not upgraded: {error}"),
        }
    });
    response.map(Body::new)
}
