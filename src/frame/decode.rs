//! Bytes to frames, for the server's side of a connection.

use std::borrow::Cow;

use fastwebsockets::unmask;
use simdutf8::{basic, compat};

use super::Opcode;
use super::header::{HEADER_MAX, Header};
use crate::close::CloseReason;

/// Bounds of one connection's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one message, and so in one frame; checked on the claimed length.
    pub message_bytes: usize,
}

/// Takes bytes as they arrive and gives whole messages and control frames.
///
/// A message that comes in one piece is unmasked where it lies and borrowed: no copy and no
/// allocation. Of one that does not, what has arrived is kept; nothing is ever allocated from a
/// length that a peer merely claims. At rest the decoder owns no buffer.
///
/// ```
/// use fanfare::frame::{Decoder, Item, Limits};
///
/// let mut decoder = Decoder::new(Limits { message_bytes: 1024 });
/// let mut bytes = *b"\x81\x82\x00\x00\x00\x00hi";
/// let mut input = &mut bytes[..];
/// assert_eq!(decoder.decode(&mut input), Ok(Some(Item::Text("hi".into()))));
/// assert_eq!(decoder.decode(&mut input), Ok(None));
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    partial: Option<Box<Partial>>,
}

/// What a decoder gives, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// The peer closes, with this code if it gave one.
    Close(Option<u16>),
    /// Some of a message, which is kept. It stands for one frame, so that a caller who bounds the
    /// frames of a turn also bounds those that complete nothing.
    Fragment,
    /// A ping, to be answered with the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong; nothing is to be done but take it as a sign of life.
    Pong,
    /// A whole text message.
    Text(Cow<'a, str>),
}

/// How a peer broke RFC 6455. The decoder must not be used after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A rule of framing.
    #[error("{0}")]
    Protocol(&'static str),
    /// A message over [`Limits::message_bytes`].
    #[error("a message is too big")]
    TooBig,
    /// Text that is not UTF-8.
    #[error("text is not utf-8")]
    Utf8,
}

impl Violation {
    /// The close that answers it (RFC 6455 section 7.4.1).
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::Protocol(_) => CloseReason::PROTOCOL_ERROR,
            Self::TooBig => CloseReason::MESSAGE_TOO_BIG,
            Self::Utf8 => CloseReason::INVALID_UTF8,
        }
    }
}

impl Decoder {
    /// A decoder at a connection's begin.
    pub fn new(limits: Limits) -> Self {
        Self { limits, partial: None }
    }

    /// Takes the next item out of `input`, which then begins after it. `None`: all of the input
    /// is used up.
    ///
    /// # Errors
    ///
    /// The peer broke a rule; close the connection with [`Violation::close_reason`].
    pub fn decode<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        if let Some(item) = self.decode_in_place(input)? {
            return Ok(Some(item));
        }
        if input.is_empty() && self.partial.is_none() {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        let item = partial.decode(input, self.limits);
        if partial.is_at_rest() {
            self.partial = None;
        }
        item
    }

    /// Bytes held of what is not yet whole.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.buffered())
    }

    /// Whether a frame or message was begun and is not whole yet.
    pub fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// The hot case: nothing is kept, and a whole frame that completes its message lies ahead.
    #[inline]
    fn decode_in_place<'a>(&self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        if self.partial.is_some() {
            return Ok(None);
        }
        let Some(header) = Header::parse(input)? else { return Ok(None) };
        check_order(&header, None)?;
        check_size(&header, 0, self.limits)?;
        let Some(opcode) = header.opcode.filter(|_| header.fin) else { return Ok(None) };
        // What passed the checks fits a usize.
        let length = header.length as usize;
        if input.len() - header.size < length {
            return Ok(None);
        }
        let (frame, rest) = std::mem::take(input).split_at_mut(header.size + length);
        *input = rest;
        let payload = &mut frame[header.size..];
        unmask(payload, header.mask);
        let payload: &'a [u8] = payload;
        match opcode {
            Opcode::Text => {
                let text = basic::from_utf8(payload).map_err(|_| Violation::Utf8)?;
                Ok(Some(Item::Text(Cow::Borrowed(text))))
            }
            Opcode::Binary => Ok(Some(Item::Binary(Cow::Borrowed(payload)))),
            control => Ok(Some(control_item(control, Cow::Borrowed(payload))?)),
        }
    }
}

/// What is kept between two inputs.
#[derive(Debug, Default)]
struct Partial {
    /// The begin of a header that goes on.
    header: Vec<u8>,
    frame: Option<Frame>,
    /// What has arrived of a control frame.
    control: Vec<u8>,
    message: Option<Assembly>,
}

impl Partial {
    fn decode<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: Limits,
    ) -> Result<Option<Item<'a>>, Violation> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.begin_frame(input, limits)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        let payload = frame.take(input);
        let is_whole = frame.rest == 0;
        if frame.opcode.is_control() {
            self.control.extend_from_slice(payload);
            if !is_whole {
                self.frame = Some(frame);
                return Ok(None);
            }
            let payload = Cow::Owned(std::mem::take(&mut self.control));
            return control_item(frame.opcode, payload).map(Some);
        }
        let message = self.message.get_or_insert_with(|| Assembly::new(frame.opcode));
        message.append(payload)?;
        if !is_whole {
            self.frame = Some(frame);
            return Ok(None);
        }
        if !frame.fin {
            return Ok(Some(Item::Fragment));
        }
        self.message.take().map(Assembly::finish).transpose()
    }

    /// Reads a header, some of which may have come before.
    fn begin_frame(
        &mut self,
        input: &mut &mut [u8],
        limits: Limits,
    ) -> Result<Option<Frame>, Violation> {
        let known = self.header.len();
        let ahead = input.len().min(HEADER_MAX - known);
        self.header.extend_from_slice(&input[..ahead]);
        let open = self.message.as_ref().map(Assembly::opcode);
        let Some(header) = Header::parse(&self.header)? else {
            advance(input, ahead);
            return Ok(None);
        };
        check_order(&header, open)?;
        check_size(&header, self.message.as_ref().map_or(0, Assembly::len), limits)?;
        advance(input, header.size - known);
        self.header.clear();
        let Header { fin, opcode, length, mask, .. } = header;
        // The order was checked: what continues has a message to continue.
        let opcode = opcode.or(open).unwrap_or(Opcode::Binary);
        Ok(Some(Frame { fin, opcode, rest: length as usize, mask }))
    }

    fn buffered(&self) -> usize {
        let message = self.message.as_ref().map_or(0, Assembly::len);
        self.header.len() + self.control.len() + message
    }

    fn is_at_rest(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }
}

/// A frame whose header is known and whose payload arrives.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    /// A continuation has the opcode of the message it continues.
    opcode: Opcode,
    /// Bytes still to come.
    rest: usize,
    /// Turned so that its first byte is for the next byte to come.
    mask: [u8; 4],
}

impl Frame {
    /// Takes, unmasked, what the input holds of the payload.
    fn take<'a>(&mut self, input: &mut &'a mut [u8]) -> &'a [u8] {
        let length = self.rest.min(input.len());
        let payload = advance(input, length);
        unmask(payload, self.mask);
        self.mask.rotate_left(length % 4);
        self.rest -= length;
        payload
    }
}

/// A message put together from fragments, or from the pieces of one frame.
#[derive(Debug)]
enum Assembly {
    Binary(Vec<u8>),
    /// Text is checked as it comes, so that bad text ends at its first bad byte.
    Text {
        whole: String,
        /// The begin of a character that a piece has cut.
        cut: Vec<u8>,
    },
}

impl Assembly {
    fn new(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Text => Self::Text { whole: String::new(), cut: Vec::new() },
            _ => Self::Binary(Vec::new()),
        }
    }

    fn opcode(&self) -> Opcode {
        match self {
            Self::Binary(_) => Opcode::Binary,
            Self::Text { .. } => Opcode::Text,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len(),
            Self::Text { whole, cut } => whole.len() + cut.len(),
        }
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let (whole, cut) = match self {
            Self::Binary(bytes) => {
                bytes.extend_from_slice(piece);
                return Ok(());
            }
            Self::Text { whole, cut } => (whole, cut),
        };
        let mut piece = piece;
        while let Some((&next, rest)) = piece.split_first().filter(|_| !cut.is_empty()) {
            cut.push(next);
            piece = rest;
            if let (character, []) = split_cut(cut)? {
                whole.push_str(character);
                cut.clear();
            }
        }
        let (text, begin) = split_cut(piece)?;
        whole.push_str(text);
        cut.extend_from_slice(begin);
        Ok(())
    }

    fn finish(self) -> Result<Item<'static>, Violation> {
        match self {
            Self::Binary(bytes) => Ok(Item::Binary(Cow::Owned(bytes))),
            Self::Text { whole, cut } if cut.is_empty() => Ok(Item::Text(Cow::Owned(whole))),
            Self::Text { .. } => Err(Violation::Utf8),
        }
    }
}

/// Splits off a last character that is cut and may still become whole.
fn split_cut(piece: &[u8]) -> Result<(&str, &[u8]), Violation> {
    let error = match compat::from_utf8(piece) {
        Ok(text) => return Ok((text, &[])),
        Err(error) if error.error_len().is_none() => error,
        Err(_) => return Err(Violation::Utf8),
    };
    let (whole, cut) = piece.split_at(error.valid_up_to());
    let text = basic::from_utf8(whole).map_err(|_| Violation::Utf8)?;
    Ok((text, cut))
}

/// Fragments of one message come together, with nothing but control frames between (section 5.4).
#[inline]
fn check_order(header: &Header, open: Option<Opcode>) -> Result<(), Violation> {
    match (header.opcode, open) {
        (None, None) => Err(Violation::Protocol("a continuation continues nothing")),
        (Some(opcode), Some(_)) if !opcode.is_control() => {
            Err(Violation::Protocol("a message begins within another"))
        }
        _ => Ok(()),
    }
}

/// Judged on the claim, before any of the payload is there.
#[inline]
fn check_size(header: &Header, held: usize, limits: Limits) -> Result<(), Violation> {
    let is_control = header.opcode.is_some_and(Opcode::is_control);
    let room = limits.message_bytes.saturating_sub(held) as u64;
    if !is_control && header.length > room { Err(Violation::TooBig) } else { Ok(()) }
}

fn control_item(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Item<'_>, Violation> {
    match opcode {
        Opcode::Close => close_code(&payload).map(Item::Close),
        Opcode::Ping => Ok(Item::Ping(payload)),
        _ => Ok(Item::Pong),
    }
}

/// The code of a Close (RFC 6455 section 5.5.1), if it is one that may be sent (section 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let is_empty = payload.is_empty();
        return if is_empty { Ok(None) } else { Err(Violation::Protocol("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("a close code that may not be sent"));
    }
    basic::from_utf8(reason).map_err(|_| Violation::Utf8)?;
    Ok(Some(code))
}

/// Cuts the first bytes off.
fn advance<'a>(input: &mut &'a mut [u8], length: usize) -> &'a mut [u8] {
    let (first, rest) = std::mem::take(input).split_at_mut(length);
    *input = rest;
    first
}
