//! A stream of Server-Sent Events, opened.

use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::target::{Form, Link};
use crate::writer::Writer;

/// Asks for what is at `path`, with a token; fails if that is not a stream.
pub(crate) async fn open(stream: TcpStream, path: &str, token: &str) -> io::Result<Link> {
    let (mut read, half) = stream.into_split();
    let writer = Rc::new(Writer::new(half));
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: server\r\nauthorization: Bearer {token}\r\n\r\n");
    writer.write_all(request.as_bytes()).await?;
    let mut input = BytesMut::new();
    let (status, head) = loop {
        if let Some(parsed) = parse(&input)? {
            break parsed;
        }
        if read.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    if status != 200 {
        let text = match status {
            401 => "it refuses the tokens; --secret takes the server's auth.hmac_secret".to_owned(),
            403 => "it lets nobody subscribe; set its channel.subscribe = anyone".to_owned(),
            status => format!("it answers with status {status}"),
        };
        return Err(io::Error::other(text));
    }
    input.advance(head);
    Ok(Link { read, writer, early: input.freeze(), form: Form::Events })
}

/// Status and size of an answer's head, once it is whole.
fn parse(input: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(input).map_err(|_| io::Error::other("the answer is not HTTP"))?;
    Ok(match (head, response.code) {
        (httparse::Status::Complete(head), Some(status)) => Some((status, head)),
        _ => None,
    })
}
