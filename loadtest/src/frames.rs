//! Frames as a client sends them: masked (RFC 6455 section 5.3).

use fastwebsockets::{Frame, OpCode, Payload};

/// A final frame of its own.
pub(crate) fn masked(opcode: OpCode, payload: Payload<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    append(&mut frame, true, opcode, payload);
    frame
}

/// Appends a frame to others; a borrowed payload is copied, a mutable one is masked in place.
pub(crate) fn append(to: &mut Vec<u8>, fin: bool, opcode: OpCode, payload: Payload<'_>) {
    let mut frame = Frame::new(fin, opcode, None, payload);
    frame.mask();
    let mut head = [0; HEADER_MAX];
    let size = frame.fmt_head(&mut head);
    to.extend_from_slice(&head[..size]);
    to.extend_from_slice(&frame.payload);
}

/// Bytes of the longest header: 2, 8 of length, 4 of mask.
const HEADER_MAX: usize = 14;
