//! The WebSocket handshake (RFC 6455 section 4.2), and whose token it carries.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest, Sha1};

use super::consent;
use super::respond::{Body, Fault};
use crate::auth::TokenError;
use crate::broker::UserHold;
use crate::close::CloseReason;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::user::Identity;

/// What a socket becomes once HTTP is done with it.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// A connection to the chat endpoint, and what holds its user.
    Chat(Identity, Option<UserHold>),
    /// A peer of the Centrifuge protocol, and whether it wants frames of RFC 6455 for pings.
    Client(bool),
    /// A WebSocket that is told why it may not stay: browsers show a close code to the page, and
    /// a failed handshake not.
    Refuse(CloseReason),
    /// A stream of Server-Sent Events, and the head of the answer that it is.
    Sse(Stream, Vec<u8>),
}

/// Answers a WebSocket handshake with 101 for an embedder, who then hands the upgraded connection
/// to [`adopt`](super::adopt).
///
/// # Errors
///
/// The request is no WebSocket handshake of version 13; the error says which status to answer.
pub fn accept<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, HandshakeError> {
    if request.method() != Method::GET {
        return Err(HandshakeError::Method);
    }
    let headers = request.headers();
    // HTTP/1.0 knows no upgrade (RFC 9110 section 7.8).
    if request.version() < Version::HTTP_11
        || !has_token(headers, UPGRADE, "websocket")
        || !has_token(headers, CONNECTION, "upgrade")
    {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).into_iter();
    // Two keys are as bad as none (RFC 6455 section 11.3.1).
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(HandshakeError::Key) };
    let key = key.as_bytes();
    if BASE64_STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != NONCE_BYTES {
        return Err(HandshakeError::Key);
    }
    let accept =
        BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let accept = HeaderValue::try_from(accept).map_err(|_| HandshakeError::Key)?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Why a request is no WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The key is missing, given twice, or not 16 bytes in base64: answer 400.
    #[error("sec-websocket-key is missing or malformed; send 16 random bytes in base64")]
    Key,
    /// Another method than GET: answer 405.
    #[error("a websocket handshake is a GET")]
    Method,
    /// No `Upgrade: websocket` with `Connection: Upgrade`: answer 426.
    #[error("not a websocket handshake; send upgrade: websocket and connection: upgrade")]
    NotAnUpgrade,
    /// Another version than 13: answer 426 with `Sec-WebSocket-Version: 13`.
    #[error("only websocket version 13 is spoken here")]
    Version,
}

impl HandshakeError {
    /// The status that RFC 6455 section 4.4 and HTTP have for it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Key => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Method => "method",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::Version => "version",
        }
    }
}

impl From<HandshakeError> for Fault {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Key => Self::bad_request(error.to_string()),
            HandshakeError::Method => Self::method_not_allowed("GET"),
            HandshakeError::NotAnUpgrade | HandshakeError::Version => Self::upgrade_required(),
        }
    }
}

/// `GET /ws/chat`: the answer, and what the socket becomes.
pub(super) async fn chat<B>(
    shard: &Shard,
    request: &Request<B>,
) -> Result<(Response<Body>, Upgrade), Fault> {
    let stats = &shard.hub.stats;
    let mut response = accept(request).inspect_err(|error| {
        stats.fail_handshake(error.label());
    })?;
    let (token, answers_protocol) = token(request);
    if answers_protocol {
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let verified = token.ok_or(TokenError::Missing);
    match verified.and_then(|token| shard.hub.verifier.verify(&token, SystemTime::now())) {
        Ok(identity) => Ok((response, consent::chat(&shard.hub, identity).await)),
        Err(error) => {
            stats.fail_handshake(error.label());
            tracing::debug!(%error, "token refused");
            Ok((response, Upgrade::Refuse(CloseReason::INVALID_TOKEN_CHAT)))
        }
    }
}

/// `GET /connection/websocket`: the token comes later, in a command.
pub(super) fn client<B>(
    shard: &Shard,
    request: &Request<B>,
) -> Result<(Response<Body>, Upgrade), Fault> {
    let stats = &shard.hub.stats;
    let response = accept(request).inspect_err(|error| stats.fail_handshake(error.label()))?;
    let has_frame_pings = parameter(request, "cf_ws_frame_ping_pong").as_deref() == Some("true");
    Ok((response, Upgrade::Client(has_frame_pings)))
}

/// The token from wherever it may be, and whether the answer must pick our subprotocol.
fn token<B>(request: &Request<B>) -> (Option<String>, bool) {
    let offered = tokens(request.headers(), SEC_WEBSOCKET_PROTOCOL);
    let mut protocols = offered.skip_while(|protocol| *protocol != SUBPROTOCOL);
    let answers_protocol = protocols.next().is_some();
    let from_protocol = || protocols.next().map(str::to_owned);
    let from_query = || parameter(request, "token");
    let token = bearer(request.headers()).map(str::to_owned).or_else(from_protocol);
    (token.or_else(from_query), answers_protocol)
}

/// The first value of a name in the query.
pub(super) fn parameter<B>(request: &Request<B>, name: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn has_token(headers: &HeaderMap, name: HeaderName, expected: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(expected))
}

/// The elements of a comma-separated list that may be spread over several headers.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// What a client offers before its token, since a browser can set no other header.
const SUBPROTOCOL: &str = "fanfare";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const NONCE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(version: Version) -> Request<()> {
        Request::builder()
            .version(version)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .body(())
            .unwrap()
    }

    /// RFC 6455 section 1.3.
    #[test]
    fn the_answer_proves_that_the_key_was_read() {
        let response = accept(&handshake(Version::HTTP_11)).unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// RFC 9110 section 7.8: an upgrade that is asked for in HTTP/1.0 is ignored.
    #[test]
    fn http_1_0_knows_no_upgrade() {
        let refusal = accept(&handshake(Version::HTTP_10)).map(drop);
        assert_eq!(refusal, Err(HandshakeError::NotAnUpgrade));
    }
}
