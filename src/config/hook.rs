//! `hook.*`: the application that is asked before things happen, and told of others.

use std::time::Duration;

use hyper::Uri;

use super::Secret;
use super::choice::{Choice, choice};

/// `hook.*`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hook {
    /// Where the application is asked and told, by POST; empty if nowhere.
    pub url: String,
    /// The key that each POST is signed with.
    pub secret: Option<Secret>,
    /// What it is asked, and what it is told.
    pub calls: Vec<HookCall>,
    /// Time that an answer may take, and each try to tell something.
    pub timeout: Duration,
    /// What becomes of a question without an answer.
    pub on_failure: OnFailure,
    /// Questions under way at once; further ones wait, within their time.
    pub concurrency: usize,
    /// Notices that wait to be told; over it the oldest is dropped and counted.
    pub queue: usize,
}

choice! {
    /// `hook.calls`: one of them.
    pub enum HookCall {
        /// Asked when a peer connects.
        "connect" => Connect,
        /// Asked when a peer subscribes itself.
        "subscribe" => Subscribe,
        /// Asked before what a peer publishes to a channel, or says in the chat, goes out.
        "publish" => Publish,
        /// Asked about what a peer sends to the application and wants no reply to.
        "message" => Message,
        /// Asked for the reply to a peer's call.
        "rpc" => Rpc,
        /// Told when a user joins this node, and when it left.
        "users" => Users,
        /// Told when a channel of this node has its first subscriber, and lost its last.
        "channels" => Channels,
    }
}

choice! {
    /// `hook.on_failure`.
    pub enum OnFailure {
        /// It is refused, with an error that says to try again.
        "refuse" => Refuse,
        /// It goes on as if there were no hook.
        "allow" => Allow,
    }
}

impl HookCall {
    /// The word that stands for it.
    pub(crate) fn label(self) -> &'static str {
        self.word()
    }
}

impl Hook {
    /// Whether there is one to post to.
    pub(crate) fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// What is not set and must be beside `hook.url`.
    pub(super) fn disagreements(&self) -> impl Iterator<Item = String> {
        let lacks = [
            (self.secret.is_none(), "secret", "the receiver checks signatures with it"),
            (self.calls.is_empty(), "calls", "name what is asked and told, such as publish, users"),
        ];
        let lacks = lacks.into_iter().filter(|(lacks, ..)| self.is_set() && *lacks);
        lacks.map(|(_, key, why)| format!("hook.{key}: must be set beside hook.url; {why}"))
    }
}

impl Default for Hook {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: None,
            calls: Vec::new(),
            timeout: Duration::from_secs(1),
            on_failure: OnFailure::Refuse,
            concurrency: 64,
            queue: 10_000,
        }
    }
}

/// Whether it can be posted to: absolute, and without what would go out in the open or nowhere.
pub(super) fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let host = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && host.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_posted_to_is_a_url() {
        for url in ["http://127.0.0.1:8000/hook", "https://example.com", "http://[::1]:1/?a=b"] {
            assert!(is_url(url), "{url}");
        }
        for text in ["example.com/hook", "/hook", "ftp://example.com", "http://a:b@example.com/"] {
            assert!(!is_url(text), "{text}");
        }
    }
}
