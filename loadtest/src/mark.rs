//! A mark in every payload: who published it, as which, and when it was due.

use std::cell::Cell;

/// What a payload is known by, however it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) publisher: u16,
    pub(crate) sequence: u32,
    /// When it should have been published, in the clock's nanoseconds.
    pub(crate) due: u64,
}

impl Mark {
    /// Bytes of a mark in a payload, all of them safe within a JSON string.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn write(self, to: &mut [u8]) {
        to[..4].copy_from_slice(MAGIC);
        write_hex(&mut to[4..8], self.publisher.into());
        write_hex(&mut to[8..16], self.sequence.into());
        write_hex(&mut to[16..32], self.due);
    }

    /// The mark that begins at `at`.
    #[inline]
    pub(crate) fn read(payload: &[u8], at: usize) -> Option<Self> {
        let bytes = payload.get(at..at + Self::BYTES)?;
        Some(Self {
            publisher: read_hex(&bytes[4..8])? as u16,
            sequence: read_hex(&bytes[8..16])? as u32,
            due: read_hex(&bytes[16..32])?,
        })
    }
}

/// Where marks lie in payloads: mostly where the last one was.
#[derive(Debug, Default)]
pub(crate) struct Place(Cell<usize>);

impl Place {
    /// Where the mark in a payload begins, if it has one.
    #[inline]
    pub(crate) fn find(&self, payload: &[u8]) -> Option<usize> {
        let at = self.0.get();
        if payload.get(at..at + MAGIC.len()).is_some_and(|bytes| bytes == MAGIC) {
            return Some(at);
        }
        let at = payload.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)?;
        self.0.set(at);
        Some(at)
    }
}

fn write_hex(to: &mut [u8], mut value: u64) {
    for digit in to.iter_mut().rev() {
        *digit = HEX[(value & 15) as usize];
        value >>= 4;
    }
}

#[inline]
fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

const MAGIC: &[u8; 4] = b"~ff~";
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_wherever_it_was_written() {
        let mark = Mark { publisher: 0xbeef, sequence: u32::MAX, due: 1 << 63 | 42 };
        let place = Place::default();
        for at in [0, 57, 57, 3] {
            let mut payload = vec![b'.'; 100];
            mark.write(&mut payload[at..]);
            assert_eq!(place.find(&payload), Some(at));
            assert_eq!(Mark::read(&payload, at), Some(mark));
        }
    }

    #[test]
    fn other_payloads_have_no_mark() {
        let place = Place::default();
        assert_eq!(place.find(br#"{"type":"pong"}"#), None);
        assert_eq!(place.find(b"~ff"), None);
        assert_eq!(Mark::read(b"~ff~00010000", 0), None);
        assert_eq!(Mark::read(&[b'~'; 40], 0), None);
    }
}
