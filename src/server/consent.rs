//! What the application is asked about peers of the chat, which are in HTTP until it has answered.

use std::sync::Arc;

use super::upgrade::Upgrade;
use crate::close::{CloseReason, REASON_MAX};
use crate::hook::{Act, Consent, Question, Refusal};
use crate::hub::Inner;
use crate::user::Identity;

/// What becomes of a peer that has a good token.
pub(super) async fn chat(hub: &Arc<Inner>, mut identity: Identity) -> Upgrade {
    let act = Act::Connect { data: None, name: "chat", version: "" };
    let question = Question { client: "", user: Some(&identity.user), act };
    match hub.consent(&question).await {
        Ok(Consent { expires, .. }) => {
            identity.expires = identity.expires.into_iter().chain(expires).min();
            let hold = hub.hold_user(&identity.user).await;
            Upgrade::Chat(identity, hold)
        }
        Err(refusal) => {
            hub.stats.fail_handshake("hook");
            Upgrade::Refuse(closing(refusal))
        }
    }
}

/// Why the WebSocket of a peer closes that the application refuses.
fn closing(refusal: Refusal) -> CloseReason {
    match refusal {
        Refusal::Close(reason) => reason,
        Refusal::Error { temporary: false, message, .. } => {
            let end = message.floor_char_boundary(REASON_MAX);
            let code = CloseReason::FORCE_DISCONNECT.code();
            CloseReason::new(code, &message[..end]).unwrap_or(CloseReason::FORCE_DISCONNECT)
        }
        Refusal::Error { .. } | Refusal::Failed(_) => CloseReason::SERVER_ERROR,
    }
}
