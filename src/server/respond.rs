//! Answers, in the one form that every endpoint gives them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
    UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::auth::TokenError;
use crate::error::PublishError;
use crate::hook::Refusal;
use crate::protocol::centrifuge;
use crate::protocol::json::encode;

/// Every answer is whole when it is made.
pub(super) type Body = Full<Bytes>;

/// A fault, as a status and as Centrifugo's error codes.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    code: u32,
    message: String,
    header: Option<(HeaderName, &'static str)>,
    is_of_transport: bool,
}

impl Fault {
    /// 400: the request cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 107, message)
    }

    /// 400: the request is understood, and cannot be carried out.
    pub(super) fn command(error: centrifuge::Error, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.code, message)
    }

    /// 401: the key is wrong or missing.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            101,
            "x-api-key is missing, or is not the server's api.key",
        )
    }

    /// 401: no token, or a bad one.
    pub(super) fn token(error: TokenError) -> Self {
        let code = if error == TokenError::Expired { 109 } else { 101 };
        let message = "the token is missing, invalid or expired; send a new one in authorization: \
                       bearer, ?token= or the cookie fanfare_token";
        Self::new(StatusCode::UNAUTHORIZED, code, message).with_header(WWW_AUTHENTICATE, "Bearer")
    }

    /// 403: the application says no; 503: not now, or it does not answer.
    pub(super) fn hook(refusal: Refusal) -> Self {
        let later = |code, message| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with_header(RETRY_AFTER, "1")
        };
        match refusal {
            Refusal::Close(reason) => {
                Self::new(StatusCode::FORBIDDEN, reason.code().into(), reason.reason())
            }
            Refusal::Error { temporary: true, code, message } => later(code, message),
            Refusal::Error { code, message, .. } => Self::new(StatusCode::FORBIDDEN, code, message),
            Refusal::Failed(_) => {
                let centrifuge::Error { code, message, .. } = centrifuge::Error::INTERNAL;
                later(code, message.to_owned())
            }
        }
    }

    /// A channel that cannot be subscribed to.
    pub(super) fn channel(error: centrifuge::Error, channel: &str) -> Self {
        let (status, advice) = match error {
            centrifuge::Error::UNKNOWN_CHANNEL => {
                (StatusCode::NOT_FOUND, "its namespace is not configured")
            }
            centrifuge::Error::PERMISSION_DENIED => {
                (StatusCode::FORBIDDEN, "its namespace or a token must allow it")
            }
            centrifuge::Error::INTERNAL => {
                (StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer; try again")
            }
            centrifuge::Error::LIMIT_EXCEEDED => {
                (StatusCode::TOO_MANY_REQUESTS, "there are too many on it")
            }
            _ => (
                StatusCode::BAD_REQUEST,
                "give a name of 1 to limits.channel_bytes bytes without control characters",
            ),
        };
        Self::new(status, error.code, format!("channel {channel}: {}; {advice}", error.message))
    }

    /// 404: nothing is here.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, 104, message)
    }

    /// 405: something is here, for other methods.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let fault = Self::new(StatusCode::METHOD_NOT_ALLOWED, 104, format!("use {allow}"));
        fault.with_header(ALLOW, allow)
    }

    /// 413: more than a limit allows.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, 107, message)
    }

    /// 426: this endpoint speaks WebSocket version 13 alone (RFC 6455 section 4.4).
    pub(super) fn upgrade_required() -> Self {
        let message = "upgrade to websocket, version 13";
        Self::new(StatusCode::UPGRADE_REQUIRED, 107, message)
            .with_header(SEC_WEBSOCKET_VERSION, "13")
    }

    /// The same, but never in band: no command was understood, or this server takes none.
    pub(super) fn of_transport(self) -> Self {
        Self { is_of_transport: true, ..self }
    }

    /// The same under status 200, as the SDKs of Centrifugo drop the body of any other; unless it is
    /// a fault of transport.
    pub(super) fn in_band(self) -> Self {
        if self.is_of_transport {
            return self;
        }
        Self { status: StatusCode::OK, header: None, ..self }
    }

    /// Its number among Centrifugo's errors.
    pub(super) fn code(&self) -> u32 {
        self.code
    }

    /// `{"error":{"code":…,"message":…}}`.
    pub(super) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: u32,
            message: &'a str,
        }
        encode(&Envelope { error: Error { code: self.code, message: &self.message } })
    }

    /// The fault as an answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = text(self.status, JSON_TYPE, self.to_json());
        if self.status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None, is_of_transport: false }
    }

    fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        let unavailable = |code| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
                .with_header(RETRY_AFTER, "1")
        };
        match error {
            PublishError::Closed => unavailable(100).of_transport(),
            PublishError::Overloaded => unavailable(111),
            PublishError::Unavailable | PublishError::Uncertain => unavailable(100),
            PublishError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, 106, error.to_string())
            }
            PublishError::NotJson => Self::bad_request(error.to_string()),
            PublishError::TooManyChannels => {
                Self::command(centrifuge::Error::LIMIT_EXCEEDED, error.to_string())
            }
            PublishError::UnknownChannel => {
                Self::command(centrifuge::Error::UNKNOWN_CHANNEL, error.to_string())
            }
        }
    }
}

/// `{"result":…}` with status 200.
pub(super) fn result(result: &str) -> Response<Body> {
    text_of_json(format!(r#"{{"result":{result}}}"#))
}

/// JSON with status 200.
pub(super) fn text_of_json(json: String) -> Response<Body> {
    text(StatusCode::OK, JSON_TYPE, json)
}

/// Text of some type.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const JSON_TYPE: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_of_transport_keep_their_status_in_band() {
        let in_band = |fault: Fault| fault.in_band().into_response();
        let full = in_band(PublishError::Overloaded.into());
        assert_eq!((full.status(), full.headers().get(RETRY_AFTER)), (StatusCode::OK, None));
        let draining = in_band(PublishError::Closed.into());
        assert_eq!(draining.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(draining.headers().contains_key(RETRY_AFTER));
    }
}
