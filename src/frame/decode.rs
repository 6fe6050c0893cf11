//! INTERIM decoder.
use std::borrow::Cow;
/// Bounds of one connection's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one message, and so in one frame; checked on the claimed length.
    pub message_bytes: usize,
}
/// S
#[derive(Debug)]
pub struct Decoder {
    partial: Vec<u8>,
    message: Option<(u8, Vec<u8>)>,
    limits: Limits,
}
/// S
#[derive(Debug)]
pub enum Item<'a> {
    /// S
    Text(Cow<'a, str>),
    /// S
    Binary(Cow<'a, [u8]>),
    /// S
    Ping(Cow<'a, [u8]>),
    /// S
    Pong,
    /// S
    Fragment,
    /// S
    Close(Option<u16>),
}
/// S
#[derive(Debug)]
pub enum Violation {
    /// S
    Protocol,
    /// S
    Utf8,
    /// S
    TooBig,
}
impl Violation {
    /// S
    pub fn close_reason(&self) -> crate::CloseReason {
        match self {
            Self::Protocol => crate::CloseReason::PROTOCOL_ERROR,
            Self::Utf8 => crate::CloseReason::INVALID_UTF8,
            Self::TooBig => crate::CloseReason::MESSAGE_TOO_BIG,
        }
    }
}
impl Decoder {
    /// S
    pub fn new(limits: Limits) -> Self {
        Self { partial: Vec::new(), message: None, limits }
    }
    /// S
    pub fn decode<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(input);
            let mut all = std::mem::take(&mut self.partial);
            let before = all.len();
            let (used, item) = {
                let mut slice = &mut all[..];
                let item = self.one(&mut slice)?;
                let used = before - slice.len();
                (
                    used,
                    item.map(|i| match i {
                        Item::Text(t) => Item::Text(Cow::Owned(t.into_owned())),
                        Item::Binary(t) => Item::Binary(Cow::Owned(t.into_owned())),
                        Item::Ping(t) => Item::Ping(Cow::Owned(t.into_owned())),
                        Item::Pong => Item::Pong,
                        Item::Fragment => Item::Fragment,
                        Item::Close(c) => Item::Close(c),
                    }),
                )
            };
            if item.is_none() {
                self.partial = all;
                *input = &mut [];
                return Ok(None);
            }
            self.partial = all.split_off(used);
            *input = &mut [];
            return Ok(item);
        }
        let item = self.one(input)?;
        if item.is_none() {
            self.partial = std::mem::take(input).to_vec();
        }
        Ok(item)
    }
    fn one<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        let b = &**input;
        if b.len() < 2 {
            return Ok(None);
        }
        let (fin, op, len7) = (b[0] & 0x80 != 0, b[0] & 15, b[1] & 127);
        if b[0] & 0x70 != 0
            || b[1] & 0x80 == 0
            || !matches!(op, 0 | 1 | 2 | 8 | 9 | 10)
            || (op >= 8 && (!fin || len7 > 125))
        {
            return Err(Violation::Protocol);
        }
        if (op == 0) != self.message.is_some() && op < 8 {
            return Err(Violation::Protocol);
        }
        let (len, at) = match len7 {
            126 => {
                if b.len() < 4 {
                    return Ok(None);
                }
                (u16::from_be_bytes([b[2], b[3]]) as usize, 4)
            }
            127 => {
                if b.len() < 10 {
                    return Ok(None);
                }
                (u64::from_be_bytes(b[2..10].try_into().unwrap()) as usize, 10)
            }
            n => (n as usize, 2),
        };
        if op < 8
            && len + self.message.as_ref().map_or(0, |m| m.1.len()) > self.limits.message_bytes
        {
            return Err(Violation::TooBig);
        }
        if b.len() < at + 4 + len {
            return Ok(None);
        }
        let mask = [b[at], b[at + 1], b[at + 2], b[at + 3]];
        let (frame, rest) = std::mem::take(input).split_at_mut(at + 4 + len);
        *input = rest;
        let payload = &mut frame[at + 4..];
        fastwebsockets::unmask(payload, mask);
        let payload: &'a [u8] = payload;
        Ok(Some(match op {
            9 => Item::Ping(payload.into()),
            10 => Item::Pong,
            8 => Item::Close(
                (payload.len() >= 2).then(|| u16::from_be_bytes([payload[0], payload[1]])),
            ),
            0 => {
                let (op, mut m) = self.message.take().unwrap();
                m.extend_from_slice(payload);
                if fin {
                    if op == 1 {
                        Item::Text(String::from_utf8(m).map_err(|_| Violation::Utf8)?.into())
                    } else {
                        Item::Binary(m.into())
                    }
                } else {
                    self.message = Some((op, m));
                    Item::Fragment
                }
            }
            _ if !fin => {
                self.message = Some((op, payload.to_vec()));
                Item::Fragment
            }
            1 => Item::Text(std::str::from_utf8(payload).map_err(|_| Violation::Utf8)?.into()),
            _ => Item::Binary(payload.into()),
        }))
    }
    /// S
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.message.as_ref().map_or(0, |m| m.1.len())
    }
    /// S
    pub fn is_mid_message(&self) -> bool {
        self.buffered() > 0 || self.message.is_some()
    }
}
