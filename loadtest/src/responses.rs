//! What a server answers over HTTP on one connection.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// Responses on a connection, one after the other.
#[derive(Debug)]
pub(crate) struct Responses {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl Responses {
    pub(crate) fn new(read: OwnedReadHalf) -> Self {
        Self { read, buffer: BytesMut::new() }
    }

    /// The next status and body.
    pub(crate) async fn next(&mut self) -> io::Result<(u16, BytesMut)> {
        loop {
            if let Some((status, head, size)) = parse(&self.buffer)? {
                self.buffer.advance(head);
                return Ok((status, self.buffer.split_to(size - head)));
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Status, and size of the head and of all, of the response that `bytes` begin with, once it is
/// whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(bytes).map_err(|_| invalid("the answer is not HTTP"))?;
    let (httparse::Status::Complete(head), Some(status)) = (head, response.code) else {
        return Ok(None);
    };
    let length = response.headers.iter().find(|header| header.name == "content-length");
    let length = length.and_then(|header| str::from_utf8(header.value).ok()?.parse().ok());
    let length: usize = length.ok_or_else(|| invalid("the answer has no content-length"))?;
    Ok((bytes.len() >= head + length).then_some((status, head, head + length)))
}
