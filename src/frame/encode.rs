//! Payload to frame.

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload};

use super::Opcode;
use crate::close::{CloseReason, NO_CODE};

/// The payload as one unmasked, final frame: header and payload in a single allocation.
pub(crate) fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut header = [0; HEADER_MAX];
    let opcode = match opcode {
        Opcode::Text => OpCode::Text,
        Opcode::Binary => OpCode::Binary,
        Opcode::Close => OpCode::Close,
        Opcode::Ping => OpCode::Ping,
        Opcode::Pong => OpCode::Pong,
    };
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut header);
    let mut frame = Vec::with_capacity(size + payload.len());
    frame.extend_from_slice(&header[..size]);
    frame.extend_from_slice(payload);
    frame.into()
}

/// A Close frame that says why (RFC 6455 section 5.5.1).
pub(crate) fn close(reason: &CloseReason) -> Bytes {
    if reason.code() == NO_CODE {
        return encode(Opcode::Close, b"");
    }
    let mut payload = Vec::with_capacity(2 + reason.reason().len());
    payload.extend_from_slice(&reason.code().to_be_bytes());
    payload.extend_from_slice(reason.reason().as_bytes());
    encode(Opcode::Close, &payload)
}

/// Bytes of the longest header a server writes: 2, and 8 of length.
const HEADER_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_takes_the_shortest_of_its_three_forms() {
        for (length, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = encode(Opcode::Binary, &vec![7; length]);
            assert_eq!(&frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + length);
        }
    }

    #[test]
    fn close_carries_code_and_reason() {
        let frame = close(&CloseReason::INVALID_TOKEN_CHAT);
        assert_eq!(&frame[..], b"\x88\x0f\x03\xf0Invalid token");
    }
}
