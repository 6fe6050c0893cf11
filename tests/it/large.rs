use fanfare::protocol::{Protocol, Reaction, Received};
use fanfare::server::adopt_with;
use fanfare::{Config, Identity, Message, UserId};

use crate::embedder::Embedder;
use crate::support::*;

#[test]
fn sixteen_mebibytes_in_one_frame_come_back() {
    echoes(|message| frame(FIN | BINARY, message), 16 << 20);
}

#[test]
fn sixty_five_thousand_fragments_come_back_as_one_message() {
    let in_fragments = |message: &[u8]| {
        let pieces: Vec<_> = message.chunks(64).collect();
        let last = pieces.len() - 1;
        let first = |index| if index == 0 { BINARY } else { CONTINUATION };
        let fin = |index| if index == last { FIN } else { 0 };
        let frames = pieces.iter().enumerate().map(|(i, piece)| frame(fin(i) | first(i), piece));
        frames.collect::<Vec<_>>().concat()
    };
    echoes(in_fragments, 4 << 20);
}

/// Nothing could ever admit it, so nobody is to wait for that.
#[test]
fn what_an_embedders_protocol_says_is_bounded_too() {
    let server = TestServer::start();
    let embedder = Embedder::with(&server.hub, |hub, upgraded| {
        adopt_with(hub, upgraded, Identity::new(UserId::from(7)), Shout)
    });
    let mut peer = embedder.open();
    peer.send_text("aloud");
    assert_eq!(peer.read_close(), (1009, "message too big".into()));
}

/// A message that is written as `encode` says, in writes of odd sizes, comes back whole.
fn echoes(encode: impl FnOnce(&[u8]) -> Vec<u8>, length: usize) {
    let server = TestServer::with(large);
    let embedder = Embedder::with(&server.hub, |hub, upgraded| {
        adopt_with(hub, upgraded, Identity::new(UserId::from(7)), Echo)
    });
    let mut peer = embedder.open();
    let message: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    for piece in encode(&message).chunks(99_991) {
        peer.send(piece);
    }
    let echo = peer.read_frame();
    assert_eq!(echo.opcode, BINARY);
    assert!(echo.payload == message, "{} bytes of another message", echo.payload.len());
}

struct Echo;

impl Protocol for Echo {
    fn receive(&mut self, message: Received<'_>) -> Reaction {
        match message {
            Received::Text(text) => Reaction::Reply(Message::text(text)),
            Received::Binary(payload) => Reaction::Reply(Message::binary(payload.to_vec())),
        }
    }
}

struct Shout;

impl Protocol for Shout {
    fn receive(&mut self, _: Received<'_>) -> Reaction {
        Reaction::Broadcast(Message::text("!".repeat(1 << 20)))
    }
}

fn large(config: &mut Config) {
    config.limits.message_bytes = 32 << 20;
    config.limits.request_bytes = 33 << 20;
    config.limits.outbox_bytes = 128 << 20;
    config.limits.ring_bytes = 256 << 20;
    config.limits.memory = 1 << 30;
}
