//! [`Receiver`]: an application that hooks post to.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fanfare::Config;
use fanfare::config::{HookCall, Secret};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::runtime::Runtime;

use crate::client::*;
use crate::support::*;

/// An application whose every answer is the test's.
pub struct Receiver {
    pub address: SocketAddr,
    posts: mpsc::Receiver<Value>,
    _runtime: Runtime,
}

/// What is answered to a post.
pub enum Reply {
    Json(Value),
    Status(u16),
    Text(&'static str),
    /// Nothing, ever.
    Never,
}

type Answer = Arc<dyn Fn(&Value) -> Reply + Send + Sync>;

impl Receiver {
    /// Answers what `answer` says to each body that is signed with [`HOOK_SECRET`], and 401 to others.
    pub fn start(answer: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    /// The same at an address that may have had one before.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, posts) = mpsc::channel();
        let answer: Answer = Arc::new(answer);
        let app = Router::new().fallback(receive).with_state((answer, sender));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, posts, _runtime: runtime }
    }

    /// Says yes to everything.
    pub fn agreeing() -> Self {
        Self::start(|_| yes())
    }

    /// The next post that came with a good signature.
    pub fn post(&self) -> Value {
        self.posts.recv_timeout(PATIENCE).unwrap()
    }

    /// Whether no post comes for as long as one would take.
    pub fn is_left_alone(&self) -> bool {
        self.posts.recv_timeout(Duration::from_millis(200)).is_err()
    }

    /// Those that came and were not looked at yet.
    pub fn posts(&self) -> Vec<Value> {
        self.posts.try_iter().collect()
    }
}

/// A server whose application is at an address, with channels.
pub fn server(
    address: SocketAddr,
    calls: &[HookCall],
    set: impl FnOnce(&mut Config),
) -> TestServer {
    TestServer::with_channels(|config| {
        config.hook.url = format!("http://{address}/hook");
        config.hook.secret = Some(Secret::new(HOOK_SECRET));
        config.hook.calls = calls.to_vec();
        // Longer than any answer here takes, as a busy machine must not make one late.
        config.hook.timeout = Duration::from_secs(10);
        set(config);
    })
}

/// Sends a command without waiting for its reply.
pub fn send(client: &mut Client, method: &str, body: &Value) {
    let command = client.command(method, body);
    client.peer.send_text(&command);
}

/// The body of a publish.
pub fn publish(data: impl Into<Value>) -> Value {
    json!({"channel": "open:a", "data": data.into()})
}

pub fn yes() -> Reply {
    Reply::Json(json!({"result": {}}))
}

pub fn error(code: u32, message: &str) -> Reply {
    Reply::Json(json!({"error": {"code": code, "message": message}}))
}

pub const HOOK_SECRET: &str = "a secret of hooks";

async fn receive(
    State((answer, posts)): State<(Answer, mpsc::Sender<Value>)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !is_signed(&headers, &body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: Value = serde_json::from_str(&body).unwrap();
    let reply = answer(&body);
    let _ = posts.send(body);
    match reply {
        Reply::Json(json) => json.to_string().into_response(),
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Text(text) => text.into_response(),
        Reply::Never => std::future::pending().await,
    }
}

fn is_signed(headers: &HeaderMap, body: &str) -> bool {
    let timestamp = headers["x-fanfare-timestamp"].to_str().unwrap();
    let age = in_seconds(0) - timestamp.parse::<i64>().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let digits: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    age.abs() < 60 && headers["x-fanfare-signature"] == format!("sha256={digits}")
}
