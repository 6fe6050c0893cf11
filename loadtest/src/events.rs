//! Events in what a server streams (HTML standard, section 9.2), looked at as if they were frames.

use crate::scanner::{CLOSE, Frame, HEAD, TEXT};

/// One connection's place in the stream.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// What has come of a line that is not whole.
    partial: Vec<u8>,
    /// Bytes of the event's lines so far.
    length: u64,
    /// Whether the event is the server's last.
    is_last: bool,
}

impl Events {
    /// Visits the data of the events that this input completes, in order. The length of each is that of
    /// the whole event; the last, which says why the stream ends, is given as a Close frame.
    pub(crate) fn scan(&mut self, mut input: &[u8], mut visit: impl FnMut(Frame<'_>)) {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.read(&input[..end], &mut visit);
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&input[..end]);
                self.read(&line, &mut visit);
            }
            input = &input[end + 1..];
        }
        self.partial.extend_from_slice(input);
    }

    fn read(&mut self, line: &[u8], visit: &mut impl FnMut(Frame<'_>)) {
        if line.is_empty() {
            (self.length, self.is_last) = (0, false);
            return;
        }
        self.length += line.len() as u64 + 1;
        if line == b"event: disconnect" {
            self.is_last = true;
        }
        let Some(data) = line.strip_prefix(b"data: ") else { return };
        if !self.is_last {
            // The empty line that ends the event is still to come.
            let head = &data[..data.len().min(HEAD)];
            visit(Frame { opcode: TEXT, length: self.length + 1, head });
        } else if let Some(code) = close_code(data) {
            visit(Frame { opcode: CLOSE, length: 2, head: &code.to_be_bytes() });
        }
    }
}

fn close_code(data: &[u8]) -> Option<u16> {
    let rest = data.strip_prefix(br#"{"code":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "id: e:0\n\n",
        "id: e:1\nevent: load00000\ndata: {\"body\":\"a\"}\n\n",
        ":\n",
        "data: {}\n\n",
        "event: disconnect\ndata: {\"code\":3008,\"reason\":\"slow\"}\n\n",
    );

    #[test]
    fn every_split_shows_the_same_events() {
        let first = "id: e:1\nevent: load00000\ndata: {\"body\":\"a\"}\n\n".len() as u64;
        let expected = [
            (TEXT, first, br#"{"body":"a"}"#.to_vec()),
            // A comment belongs to the event that it comes before.
            (TEXT, ":\ndata: {}\n\n".len() as u64, b"{}".to_vec()),
            (CLOSE, 2, 3008u16.to_be_bytes().to_vec()),
        ];
        for size in 1..STREAM.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in STREAM.as_bytes().chunks(size) {
                events.scan(piece, |frame| {
                    seen.push((frame.opcode, frame.length, frame.head.to_vec()));
                });
            }
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }
}
