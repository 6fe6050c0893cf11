//! Frames in what a server sends, found by hopping from header to header.
//!
//! The load tester must not cost more than what it measures, so nothing is copied and no JSON is
//! read: a frame is its opcode, its length, and a look at the first bytes of its payload.

/// A frame as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    /// Bytes of payload.
    pub(crate) length: u64,
    /// The payload's first bytes, at most [`HEAD`].
    pub(crate) head: &'a [u8],
}

/// One connection's place in the stream.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes of the current frame that are still to come and of no interest.
    skip: u64,
    /// What has come of a frame whose look is not complete.
    partial: Vec<u8>,
}

impl Scanner {
    /// Visits the frames whose look is complete with this input, in order.
    ///
    /// # Errors
    ///
    /// The server sent a frame that a server must not send; the stream makes no sense from there.
    pub(crate) fn scan(
        &mut self,
        mut input: &[u8],
        mut visit: impl FnMut(Frame<'_>),
    ) -> Result<(), Masked> {
        if !self.partial.is_empty() {
            let carried = self.partial.len();
            let wanted = input.len().min(HEADER_MAX + HEAD - carried);
            self.partial.extend_from_slice(&input[..wanted]);
            let Some((frame, size)) = parse(&self.partial)? else { return Ok(()) };
            visit(frame);
            self.skip = size - carried as u64;
            self.partial.clear();
        }
        loop {
            let skipped = self.skip.min(input.len() as u64);
            self.skip -= skipped;
            input = &input[skipped as usize..];
            if input.is_empty() {
                return Ok(());
            }
            let Some((frame, size)) = parse(input)? else { break };
            visit(frame);
            self.skip = size;
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }
}

/// The server sent a masked frame, which RFC 6455 section 5.1 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masked;

/// The frame that `bytes` begin with and its size on the wire, unless more is needed to see it.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, u64)>, Masked> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & MASKED != 0 {
        return Err(Masked);
    }
    let (length, payload) = match *second {
        LENGTH_16 => match rest.split_first_chunk() {
            Some((length, payload)) => (u64::from(u16::from_be_bytes(*length)), payload),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.split_first_chunk() {
            Some((length, payload)) => (u64::from_be_bytes(*length), payload),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    let Some(head) = payload.get(..length.min(HEAD as u64) as usize) else { return Ok(None) };
    let header = (bytes.len() - payload.len()) as u64;
    let frame = Frame { opcode: first & OPCODE, length, head };
    Ok(Some((frame, header.saturating_add(length))))
}

/// RFC 6455 section 5.2.
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Bytes of payload that are looked at: a control frame's all, and where a mark may be.
pub(crate) const HEAD: usize = 128;

/// Bytes of the longest header of an unmasked frame: 2, and 8 of length.
const HEADER_MAX: usize = 10;

const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_masked_frame_ends_the_scan() {
        assert_eq!(Scanner::default().scan(&[0x81, 0x80], |_| ()), Err(Masked));
    }

    #[test]
    fn a_length_without_end_does_not_overflow() {
        let mut scanner = Scanner::default();
        let mut bytes = vec![0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255];
        bytes.resize(1000, 7);
        let mut lengths = Vec::new();
        assert_eq!(scanner.scan(&bytes, |frame| lengths.push(frame.length)), Ok(()));
        assert_eq!(lengths, [u64::MAX]);
    }

    fn wire(opcode: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(length as u8),
            126..=65_535 => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend((0..length).map(|i| (i % 251) as u8));
        bytes
    }

    proptest! {
        #[test]
        fn every_split_shows_the_same_frames(
            frames in prop::collection::vec(
                (0u8..=10, prop_oneof![0usize..300, Just(65_535), Just(65_536)]),
                0..12,
            ),
            cuts in prop::collection::vec(1usize..400, 1..50),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|&(opcode, length)| wire(opcode, length)).collect();
            let mut scanner = Scanner::default();
            let mut seen = Vec::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                let visit = |frame: Frame<'_>| {
                    seen.push((frame.opcode, frame.length as usize, frame.head.to_vec()));
                };
                prop_assert_eq!(scanner.scan(piece, visit), Ok(()));
                rest = after;
            }
            let head = |length: usize| (0..length.min(HEAD)).map(|i| (i % 251) as u8).collect();
            let expected: Vec<(u8, usize, Vec<u8>)> = frames
                .iter()
                .map(|&(opcode, length)| (opcode, length, head(length)))
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
