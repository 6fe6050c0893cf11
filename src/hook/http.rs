//! Hooks over HTTP: each question and each batch of notices is one signed POST.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::{Decision, Delivery, Failure, Hooks, Notice, Question, Refusal, wire};
use crate::config::{Config, HookCall, Secret};

/// Asks and tells an application at `hook.url`.
pub(crate) struct HttpHooks {
    calls: Vec<HookCall>,
    node: String,
    runtime: Handle,
    turns: Arc<Semaphore>,
    poster: Arc<Poster>,
}

impl HttpHooks {
    /// Hooks that do their I/O on that runtime, and name the node so.
    ///
    /// # Errors
    ///
    /// The URL is one of `https`, and the system has no certificates to trust.
    pub(crate) fn new(config: &Config, runtime: Handle, node: String) -> io::Result<Self> {
        let hook = &config.hook;
        // Checked with the configuration.
        let url: Uri = hook.url.parse().map_err(io::Error::other)?;
        let secret = hook.secret.clone().unwrap_or_else(|| Secret::new([]));
        let connector = connector(&url)?;
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
        let poster = Poster {
            client: client.build(connector),
            url,
            secret,
            max_answer: config.limits.request_bytes,
        };
        Ok(Self {
            calls: hook.calls.clone(),
            node,
            runtime,
            turns: Arc::new(Semaphore::new(hook.concurrency)),
            poster: Arc::new(poster),
        })
    }
}

impl Hooks for HttpHooks {
    fn decide(&self, question: &Question<'_>) -> Option<Decision> {
        if !self.calls.contains(&question.act.call()) {
            return None;
        }
        let body = wire::question(question);
        let (turns, poster) = (self.turns.clone(), self.poster.clone());
        let (mut asker, answer) = oneshot::channel();
        self.runtime.spawn(async move {
            let ask = async {
                let _turn = turns.acquire().await;
                wire::answer(&poster.post(body).await.map_err(Refusal::Failed)?)
            };
            tokio::select! {
                // Nobody waits for it any more.
                () = asker.closed() => {}
                answer = ask => drop(asker.send(answer)),
            }
        });
        let ended = Err(Refusal::Failed(Failure::Unreachable));
        Some(Box::pin(async { answer.await.unwrap_or(ended) }))
    }

    fn notify(&self, notices: &[Notice]) -> Delivery {
        let body = wire::notices(&self.node, notices);
        let poster = self.poster.clone();
        Box::pin(async move { poster.post(body).await.map(drop) })
    }
}

impl fmt::Debug for HttpHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHooks").field("url", &self.poster.url).finish_non_exhaustive()
    }
}

/// Posts to one URL.
struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    secret: Secret,
    max_answer: usize,
}

impl Poster {
    /// Posts a body, and returns that of the answer.
    async fn post(&self, body: String) -> Result<Bytes, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = sign(&self.secret, now, &body);
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(TIMESTAMP, now)
            .header(SIGNATURE, signature)
            .body(Full::from(body));
        let request = request.map_err(|_| Failure::Unreachable)?;
        let response = self.client.request(request).await.map_err(|error| {
            tracing::debug!(%error, source = ?std::error::Error::source(&error), "a hook cannot be reached");
            Failure::Unreachable
        })?;
        if !response.status().is_success() {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), self.max_answer).collect().await;
        Ok(body.map_err(|_| Failure::Answer)?.to_bytes())
    }
}

/// What proves that a body is from who knows the secret, and from when.
fn sign(secret: &Secret, timestamp: u64, body: &str) -> String {
    // Keys of every length are taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose()) else { return String::new() };
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let digits = mac.finalize().into_bytes();
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("sha256=".to_owned()).chain(digits).collect()
}

/// Connects to a URL; with TLS it trusts what the system trusts.
fn connector(url: &Uri) -> io::Result<HttpsConnector<HttpConnector>> {
    // Named, as an embedder may have compiled in more than one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider);
    let tls = tls.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let tls = match url.scheme_str() {
        Some("https") => tls.with_native_roots()?,
        _ => tls.with_root_certificates(RootCertStore::empty()),
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    // What is small and awaited must not wait for more.
    http.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
    Ok(tls.https_or_http().enable_http1().wrap_connector(http))
}

/// How long a connection is kept for the next question: less than the five seconds after which
/// common servers close theirs, as a question may cross with that close.
const IDLE_MAX: Duration = Duration::from_secs(4);

const TIMESTAMP: &str = "x-fanfare-timestamp";
const SIGNATURE: &str = "x-fanfare-signature";

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1800000000.{"call":"rpc"}' | openssl dgst -sha256 -hmac 'a secret of the test'`
    #[test]
    fn the_signature_is_what_other_implementations_make() {
        let signature =
            sign(&Secret::new("a secret of the test"), 1_800_000_000, r#"{"call":"rpc"}"#);
        assert_eq!(
            signature,
            "sha256=aaaeddad025bdf07dadd74a14cef35d2e041dfccef1805807da571a577412fe3"
        );
    }
}
