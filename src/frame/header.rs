//! The header of a frame from a peer (RFC 6455 section 5.2).

use super::decode::Violation;
use super::{CONTROL_BYTES_MAX, Opcode};

/// A frame's header, as far as one frame alone can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the frame is its message's last.
    pub(super) fin: bool,
    /// `None`: the frame continues a message.
    pub(super) opcode: Option<Opcode>,
    /// Bytes of payload that the frame claims.
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
    /// Bytes of the header itself.
    pub(super) size: usize,
}

impl Header {
    /// Parses what `bytes` begin with; `None` if the header goes on. A rule that is broken shows
    /// at the byte that breaks it, however the bytes arrive.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        let opcode = match first & OPCODE {
            0 => None,
            1 => Some(Opcode::Text),
            2 => Some(Opcode::Binary),
            8 => Some(Opcode::Close),
            9 => Some(Opcode::Ping),
            10 => Some(Opcode::Pong),
            _ => return Err(Violation::Protocol("a reserved opcode is used")),
        };
        let fin = first & FIN != 0;
        let is_control = opcode.is_some_and(Opcode::is_control);
        if is_control && !fin {
            return Err(Violation::Protocol("a control frame is fragmented"));
        }
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(Violation::Protocol("a frame is not masked"));
        }
        if is_control && second & LENGTH > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("a control frame is over 125 bytes"));
        }
        let Some((length, rest)) = length(second & LENGTH, rest)? else { return Ok(None) };
        let Some((&mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, length, mask, size: bytes.len() - rest.len() }))
    }
}

/// The length of the payload, and what follows it.
#[inline]
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (length, rest, least) = match short {
        LENGTH_16 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u16::from_be_bytes(*bytes).into(), rest, LENGTH_16.into()),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 1 << 16),
            None => return Ok(None),
        },
        short => (short.into(), rest, 0),
    };
    if length < least {
        return Err(Violation::Protocol("a length is not in its shortest form"));
    }
    if length >= 1 << 63 {
        return Err(Violation::Protocol("a length has its highest bit set"));
    }
    Ok(Some((length, rest)))
}

/// Bytes of the longest header: 2, 8 of length, 4 of mask.
pub(super) const HEADER_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
