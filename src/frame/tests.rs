//! The decoder against RFC 6455, rule by rule, and against every way its input may be cut.

use std::borrow::Cow;

use proptest::prelude::*;

use super::{Decoder, Item, Limits, Violation};

/// What became of some input.
#[derive(Debug, PartialEq)]
struct Decoded {
    items: Vec<Item<'static>>,
    violation: Option<Violation>,
    /// Whether the input ends within a frame or message.
    is_mid_message: bool,
}

/// Decodes input that arrives in these pieces, and holds the decoder to its bounds after each.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new(LIMITS);
    let (mut items, mut arrived) = (Vec::new(), 0);
    for piece in pieces {
        arrived += piece.len();
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(item)) => items.push(own(item)),
                Ok(None) => break,
                Err(violation) => {
                    return Decoded { items, violation: Some(violation), is_mid_message: false };
                }
            }
        }
        assert!(input.is_empty());
        assert!(decoder.buffered() <= arrived.min(LIMITS.message_bytes + HEADER_AND_CONTROL));
        assert!(decoder.is_mid_message() || decoder.buffered() == 0);
    }
    Decoded { items, violation: None, is_mid_message: decoder.is_mid_message() }
}

fn decode_whole(input: &[u8]) -> Decoded {
    decode([input])
}

fn decode_bytewise(input: &[u8]) -> Decoded {
    decode(input.chunks(1))
}

#[track_caller]
fn gives<const N: usize>(input: &[u8], items: [Item<'static>; N]) {
    let expected = Decoded { items: items.into(), violation: None, is_mid_message: false };
    assert_eq!(decode_whole(input), expected);
    assert_eq!(decode_bytewise(input), expected);
}

/// The input is refused, and neither before its last byte nor only because of it.
#[track_caller]
fn refuses(input: &[u8], violation: Violation) {
    assert_eq!(decode_whole(input).violation, Some(violation), "{input:02x?}");
    assert_eq!(decode_bytewise(input).violation, Some(violation), "{input:02x?}");
    let (_, before) = input.split_last().unwrap();
    assert_eq!(decode_bytewise(before).violation, None, "{input:02x?} was refused too early");
}

#[track_caller]
fn breaks_protocol(input: &[u8]) {
    match decode_whole(input).violation {
        Some(violation @ Violation::Protocol(_)) => refuses(input, violation),
        other => panic!("{input:02x?}: {other:?}"),
    }
}

/// Section 5.1: a server closes when a frame is not masked.
#[test]
fn an_unmasked_frame_is_refused() {
    for first in [FIN | TEXT, FIN | BINARY, TEXT, FIN | CLOSE, FIN | PING, FIN | PONG] {
        breaks_protocol(&[first, 0]);
    }
}

/// Section 5.2: reserved bits are 0 unless an extension was agreed on, and none ever is.
#[test]
fn reserved_bits_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
            breaks_protocol(&[FIN | bit | opcode]);
        }
    }
}

/// Section 5.2.
#[test]
fn reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        breaks_protocol(&[FIN | opcode]);
        breaks_protocol(&[opcode]);
    }
}

/// Section 5.2: the least number of bytes encodes the length.
#[test]
fn a_length_not_in_its_shortest_form_is_refused() {
    breaks_protocol(&[FIN | BINARY, MASKED | 126, 0, 125]);
    breaks_protocol(&[FIN | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    gives(&frame(FIN | BINARY, &[7; 126]), [binary(&[7; 126])]);
}

/// Section 5.2: the most significant bit of a length is 0.
#[test]
fn a_length_with_its_highest_bit_set_is_refused() {
    breaks_protocol(&[FIN | BINARY, MASKED | 127, 0x80, 0, 0, 0, 0, 1, 0, 0]);
}

/// Section 5.3: byte i is masked with byte i modulo 4 of the key, through every piece.
#[test]
fn a_payload_is_unmasked_wherever_it_is_cut() {
    let payload: Vec<u8> = (0..=255).collect();
    let frame = frame(FIN | BINARY, &payload);
    for cut in 0..=frame.len() {
        let (first, second) = frame.split_at(cut);
        assert_eq!(decode([first, second]).items, [binary(&payload)]);
    }
}

/// Section 5.4: a message may come in fragments, empty ones among them.
#[test]
fn fragments_become_one_message() {
    let pieces = [frame(TEXT, b"He"), frame(0, b""), frame(0, b"l"), frame(FIN, b"lo")];
    let fragments = [Item::Fragment, Item::Fragment, Item::Fragment];
    let [first, second, third] = fragments;
    gives(&pieces.concat(), [first, second, third, text("Hello")]);
    gives(&[frame(BINARY, b""), frame(FIN, b"")].concat(), [Item::Fragment, binary(b"")]);
}

/// Sections 5.4 and 5.5: control frames may come between fragments.
#[test]
fn control_frames_come_between_fragments() {
    let pieces = [frame(TEXT, b"a"), frame(FIN | PING, b"b"), frame(FIN | PONG, b"")];
    let input = [pieces.concat(), frame(FIN, b"c")].concat();
    gives(&input, [Item::Fragment, ping(b"b"), Item::Pong, text("ac")]);
}

/// Section 5.4.
#[test]
fn a_continuation_of_nothing_is_refused() {
    for first in [CONTINUATION, FIN | CONTINUATION] {
        breaks_protocol(&frame(first, b""));
        breaks_protocol(&[frame(FIN | TEXT, b"whole"), frame(first, b"")].concat());
    }
}

/// Section 5.4: fragments of two messages do not mix.
#[test]
fn a_message_within_a_message_is_refused() {
    for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        breaks_protocol(&[frame(TEXT, b"a"), frame(first, b"")].concat());
    }
}

/// Section 5.5.
#[test]
fn a_fragmented_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        breaks_protocol(&[opcode]);
    }
}

/// Section 5.5: a control frame holds at most 125 bytes.
#[test]
fn an_oversize_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        breaks_protocol(&[FIN | opcode, MASKED | 126]);
        breaks_protocol(&[FIN | opcode, MASKED | 127]);
    }
    gives(&frame(FIN | PING, &[1; 125]), [ping(&[1; 125])]);
}

/// Section 5.5.1: a Close is empty, or a code and perhaps a reason.
#[test]
fn a_close_may_carry_a_code_and_a_reason() {
    gives(&frame(FIN | CLOSE, b""), [Item::Close(None)]);
    gives(&close(1000, b""), [Item::Close(Some(1000))]);
    gives(&close(1001, "Å".as_bytes()), [Item::Close(Some(1001))]);
    gives(&close(4999, &[b'r'; 123]), [Item::Close(Some(4999))]);
    breaks_protocol(&frame(FIN | CLOSE, &[3]));
}

/// Section 5.5.1: the reason is UTF-8.
#[test]
fn a_close_reason_that_is_not_utf8_is_refused() {
    refuses(&close(1000, &[0xc3]), Violation::Utf8);
    refuses(&close(1000, &[0xff]), Violation::Utf8);
}

/// Sections 7.4.1 and 7.4.2: 1004 to 1006 and 1015 are never sent, what is below 1000 or above
/// 4999 is no code, and 1016 to 2999 have no meaning yet.
#[test]
fn close_codes_that_may_not_be_sent_are_refused() {
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        breaks_protocol(&close(code, b""));
    }
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        gives(&close(code, b""), [Item::Close(Some(code))]);
    }
}

/// Sections 5.6 and 8.1.
#[test]
fn text_that_is_not_utf8_is_refused() {
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80"] {
        assert_eq!(decode_whole(&frame(FIN | TEXT, bad)).violation, Some(Violation::Utf8));
        assert_eq!(decode_bytewise(&frame(FIN | TEXT, bad)).violation, Some(Violation::Utf8));
        gives(&frame(FIN | BINARY, bad), [binary(bad)]);
    }
}

/// Section 8.1: the whole message is UTF-8, not each of its fragments.
#[test]
fn a_character_may_be_cut_by_a_fragment_but_not_by_the_end() {
    let crab = "🦀".as_bytes();
    for cut in 0..=crab.len() {
        let (first, second) = crab.split_at(cut);
        let whole = [frame(TEXT, first), frame(FIN, second)].concat();
        gives(&whole, [Item::Fragment, text("🦀")]);
    }
    refuses(&frame(FIN | TEXT, &crab[..3]), Violation::Utf8);
    refuses(&[frame(TEXT, &crab[..2]), frame(FIN, b"")].concat(), Violation::Utf8);
}

/// Section 8.1, and Autobahn's wish that a peer fails fast: what follows is not waited for.
#[test]
fn bad_text_ends_at_its_first_bad_byte() {
    let whole = frame(TEXT, b"good\xffand more that never comes");
    let bad = &whole[..whole.len() - b"and more that never comes".len()];
    refuses(bad, Violation::Utf8);
}

/// Section 10.4: the limit holds for frames and for the messages that fragments make up, and is
/// checked on the claim, before anything is allocated or awaited.
#[test]
fn a_message_over_the_limit_is_refused_on_its_claim() {
    let most = LIMITS.message_bytes;
    gives(&frame(FIN | BINARY, &vec![7; most]), [binary(&vec![7; most])]);
    refuses(&header(FIN | BINARY, most as u64 + 1), Violation::TooBig);
    refuses(&header(FIN | TEXT, (1 << 63) - 1), Violation::TooBig);
    let begun = frame(BINARY, &vec![7; most - 1]);
    refuses(&[begun.clone(), header(FIN, 2)].concat(), Violation::TooBig);
    gives(&[begun, frame(FIN, &[7])].concat(), [Item::Fragment, binary(&vec![7; most])]);
}

/// Nothing is held at rest, and only what arrived while a message is awaited.
#[test]
fn a_decoder_at_rest_holds_nothing() {
    let mut decoder = Decoder::new(LIMITS);
    let mut input = frame(FIN | TEXT, b"Hello");
    let (first, second) = input.split_at_mut(8);
    assert_eq!(decoder.decode(&mut &mut *first), Ok(None));
    assert_eq!((decoder.buffered(), decoder.is_mid_message()), (2, true));
    assert_eq!(decoder.decode(&mut &mut *second), Ok(Some(text("Hello"))));
    assert_eq!((decoder.buffered(), decoder.is_mid_message()), (0, false));
}

/// Section 7.4.1.
#[test]
fn each_violation_has_its_close_code() {
    for (violation, code) in
        [(Violation::Protocol(""), 1002), (Violation::Utf8, 1007), (Violation::TooBig, 1009)]
    {
        assert_eq!(violation.close_reason().code(), code);
    }
}

/// Frames of which most are in order, so that a run of them goes deep before it fails.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![FIN | TEXT, FIN | BINARY, TEXT, BINARY, 0, 0, FIN]),
        4 => prop::sample::select(vec![FIN | PING, FIN | PONG, FIN | CLOSE]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        ".{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..140),
        Just(b"\x03\xe8bye".to_vec()),
    ];
    (first, payload, any::<[u8; 4]>()).prop_map(|(first, payload, mask)| {
        masked(header_with(first, payload.len() as u64, mask), &payload, mask)
    })
}

/// Text of which little is wrong, or nothing.
fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
    (".{0,30}", prop::option::of((any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(text, slip)| {
            let mut bytes = text.into_bytes();
            if let Some((index, byte)) = slip.filter(|_| !bytes.is_empty()) {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes
        },
    )
}

/// The input cut at these places, wherever they are.
fn cut<'a>(input: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

proptest! {
    #[test]
    fn however_frames_arrive_they_give_the_same(
        frames in prop::collection::vec(any_frame(), 0..8),
        cuts in cuts(),
    ) {
        let input = frames.concat();
        let whole = decode_whole(&input);
        prop_assert_eq!(&decode(cut(&input, &cuts)), &whole);
        prop_assert_eq!(&decode_bytewise(&input), &whole);
    }

    #[test]
    fn however_garbage_arrives_it_gives_the_same(input: Vec<u8>, cuts in cuts()) {
        prop_assert_eq!(decode(cut(&input, &cuts)), decode_whole(&input));
    }

    /// Section 8.1, by the standard library's judgement of the whole message.
    #[test]
    fn text_is_judged_alike_however_it_is_fragmented(
        payload in nearly_text(),
        fragments in cuts(),
        cuts in cuts(),
    ) {
        let mut frames: Vec<_> = cut(&payload, &fragments)
            .into_iter()
            .enumerate()
            .map(|(index, piece)| frame(if index == 0 { TEXT } else { 0 }, piece))
            .collect();
        frames.last_mut().unwrap()[0] |= FIN;
        let input = frames.concat();
        let decoded = decode(cut(&input, &cuts));
        match std::str::from_utf8(&payload) {
            Ok(whole) => prop_assert_eq!(decoded.items.last(), Some(&text(whole))),
            Err(_) => prop_assert_eq!(decoded.violation, Some(Violation::Utf8)),
        }
    }
}

fn own(item: Item<'_>) -> Item<'static> {
    match item {
        Item::Binary(payload) => binary(&payload),
        Item::Close(code) => Item::Close(code),
        Item::Fragment => Item::Fragment,
        Item::Ping(payload) => ping(&payload),
        Item::Pong => Item::Pong,
        Item::Text(payload) => text(&payload),
    }
}

fn binary(payload: &[u8]) -> Item<'static> {
    Item::Binary(Cow::Owned(payload.to_vec()))
}

fn ping(payload: &[u8]) -> Item<'static> {
    Item::Ping(Cow::Owned(payload.to_vec()))
}

fn text(payload: &str) -> Item<'static> {
    Item::Text(Cow::Owned(payload.to_owned()))
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(header(first, payload.len() as u64), payload, MASK)
}

fn header(first: u8, length: u64) -> Vec<u8> {
    header_with(first, length, MASK)
}

fn header_with(first: u8, length: u64, mask: [u8; 4]) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(MASKED | length as u8),
        126..=0xffff => {
            header.push(MASKED | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(MASKED | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(mask);
    header
}

fn masked(mut header: Vec<u8>, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    header.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    header
}

const LIMITS: Limits = Limits { message_bytes: 1000 };

/// Bytes that may be held beside a message: a header that goes on, or a control frame that does.
const HEADER_AND_CONTROL: usize = 14 + 125;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
