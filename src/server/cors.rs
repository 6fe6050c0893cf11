//! Which pages of other origins may read an answer (Fetch standard, CORS protocol), and so whose
//! cookies count.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ALLOW, HOST, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

use super::respond::Body;

/// Where a request comes from, as its browser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source<'r> {
    /// A page of another origin that `server.allowed_origins` names.
    Allowed(&'r HeaderValue),
    /// A page of another origin that it does not name.
    Foreign,
    /// A page of the server's own origin, or no page of another.
    Own,
}

impl<'r> Source<'r> {
    pub(super) fn of(headers: &'r HeaderMap, allowed: &[String]) -> Self {
        let Some(origin) = headers.get(ORIGIN) else { return Self::Own };
        if allowed.iter().any(|allowed| origin == allowed.as_str()) {
            return Self::Allowed(origin);
        }
        // Whether the page came over TLS only the proxy in front knows.
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        match (host, headers.get(HOST)) {
            (Some((_, page)), Some(host)) if host == page => Self::Own,
            _ => Self::Foreign,
        }
    }

    /// Whether a cookie says whose the request is; it would come with any page's.
    pub(super) fn may_use_cookies(self) -> bool {
        self != Self::Foreign
    }

    /// Has browsers hand the answer to a page that may read it.
    pub(super) fn expose(self, headers: &mut HeaderMap) {
        headers.insert(VARY, HeaderValue::from_static("origin"));
        if let Self::Allowed(origin) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The answer to OPTIONS, by which a browser asks before it sends such headers.
    pub(super) fn preflight(self) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        if let Self::Allowed(_) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
            let allowed = HeaderValue::from_static("authorization, cache-control, last-event-id");
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
        }
        response
    }
}

/// How long a browser need not ask again: as long as any of them heeds.
const PREFLIGHT_SECONDS: &str = "7200";

#[cfg(test)]
mod tests {
    use super::*;

    fn from(origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("live.example:8080"));
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        headers
    }

    fn source(headers: &HeaderMap) -> Source<'_> {
        Source::of(headers, &["https://app.example".to_owned()])
    }

    #[test]
    fn an_origin_is_its_servers_own_allowed_or_foreign() {
        assert_eq!(source(&from(None)), Source::Own);
        assert_eq!(source(&from(Some("http://live.example:8080"))), Source::Own);
        assert!(matches!(source(&from(Some("https://app.example"))), Source::Allowed(_)));
        for foreign in
            ["http://live.example", "http://app.example", "https://app.example.evil", "null"]
        {
            assert_eq!(source(&from(Some(foreign))), Source::Foreign, "{foreign}");
        }
    }
}
