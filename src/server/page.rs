//! The page at `/` of a development server.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::listeners::Door;
use super::respond::{Body, text};
use crate::auth;
use crate::hub::Inner;
use crate::user::{Identity, UserId};

/// The page, with tokens for some sample users in it, and where it connects: to whence it came, or
/// to the public's port.
pub(super) fn page(hub: &Inner, door: Door) -> Response<Body> {
    #[derive(Serialize)]
    struct Sample {
        sub: UserId,
        name: &'static str,
        token: String,
    }
    let sample = |(number, name)| {
        let identity = Identity::new(UserId::from(number)).named(name);
        let token = auth::sign(&hub.config.auth, &identity, TOKEN_TTL).ok()?;
        Some(Sample { sub: identity.user, name, token })
    };
    let samples: Vec<_> = SAMPLES.into_iter().filter_map(sample).collect();
    // Tokens and names of ours hold nothing that HTML or a script would take amiss.
    let tokens = serde_json::to_string(&samples).unwrap_or_default();
    let (port, allowed) = match door {
        Door::Internal => {
            let port = hub.config.server.bind.port();
            (port.to_string(), format!("ws://*:{port} wss://*:{port}"))
        }
        Door::Only | Door::Public => (String::new(), "'self'".to_owned()),
    };
    let page = PAGE.replace("{{tokens}}", &tokens);
    let page = page.replace("{{port}}", &port).replace("{{allowed}}", &allowed);
    text(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(page))
}

const PAGE: &str = include_str!("page.html");

const SAMPLES: [(i32, &str); 4] = [(42, "Ada"), (43, "Grace"), (44, "Linus"), (45, "Margaret")];

const TOKEN_TTL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
