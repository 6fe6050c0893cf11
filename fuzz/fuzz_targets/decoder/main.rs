//! The decoder on any bytes in any pieces: it never panics, holds no more than its limit, and gives
//! what a naive decoder gives that sees the whole input.
//!
//! The first byte says how many of the next are lengths of pieces, which repeat until the rest,
//! the input, is used up.

#![no_main]

mod reference;

use fanfare::frame::{Decoder, Item, Limits, Violation};
use libfuzzer_sys::fuzz_target;
use reference::{Seen, reference};

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let (lengths, input) = rest.split_at(rest.len().min(usize::from(count % LENGTHS_MAX)));
    assert_eq!(decode(input, lengths), reference(input, MESSAGE_BYTES));
});

fn decode(input: &[u8], lengths: &[u8]) -> (Vec<Seen>, Option<Violation>) {
    let mut decoder = Decoder::new(Limits { message_bytes: MESSAGE_BYTES });
    let mut seen = Vec::new();
    let mut lengths = lengths.iter().cycle().map(|length| usize::from(*length).max(1));
    let mut rest = input;
    while !rest.is_empty() {
        let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, after) = rest.split_at(length);
        let mut piece = piece.to_vec();
        let mut piece = &mut piece[..];
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(item)) => seen.push(own(item)),
                Ok(None) => break,
                Err(violation) => return (seen, Some(normal(violation))),
            }
        }
        assert!(piece.is_empty());
        assert!(decoder.buffered() <= (input.len() - after.len()).min(HELD_MAX));
        assert!(decoder.is_mid_message() || decoder.buffered() == 0);
        rest = after;
    }
    (seen, None)
}

fn own(item: Item<'_>) -> Seen {
    match item {
        Item::Binary(payload) => Seen::Binary(payload.into_owned()),
        Item::Close(code) => Seen::Close(code),
        Item::Fragment => Seen::Fragment,
        Item::Ping(payload) => Seen::Ping(payload.into_owned()),
        Item::Pong => Seen::Pong,
        Item::Text(text) => Seen::Text(text.into_owned()),
        other => panic!("{other:?}"),
    }
}

/// Which rule of framing was broken is told to people alone.
fn normal(violation: Violation) -> Violation {
    match violation {
        Violation::Protocol(_) => Violation::Protocol(""),
        other => other,
    }
}

const LENGTHS_MAX: u8 = 16;

/// Reached by inputs of the size that the fuzzer likes.
const MESSAGE_BYTES: usize = 300;

/// A message, and a control frame or a header that goes on.
const HELD_MAX: usize = MESSAGE_BYTES + 14 + 125;
