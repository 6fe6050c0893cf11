//! A blog that embeds the hub: its authors hear at once, in every tab, that someone liked a post.
//!
//! `FANFARE_AUTH_HMAC_SECRET=… cargo run --example like -- 127.0.0.1:8080`

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use fanfare::auth::Verifier;
use fanfare::server::{accept_upgrade, adopt};
use fanfare::{Hub, Identity, UserId, config};
use serde::{Deserialize, Serialize};

struct App {
    hub: Hub,
    verifier: Verifier,
    posts: HashMap<u64, Post>,
}

struct Post {
    author: UserId,
    title: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let config = config::load(None, std::env::vars(), [])?.config;
    if config.auth.hmac_secret.is_none() {
        return Err("no one could sign in; set FANFARE_AUTH_HMAC_SECRET".into());
    }
    let verifier = Verifier::new(&config.auth);
    let hub = Hub::start(config)?;
    let posts = HashMap::from([(7, Post { author: UserId::from(42), title: "On looms" })]);
    let app = Arc::new(App { hub: hub.clone(), verifier, posts });

    let routes = Router::new()
        .route("/ws", any(connect))
        .route("/posts/{id}/like", post(like))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("blogging on http://{}", listener.local_addr()?);
    let interrupted = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, routes).with_graceful_shutdown(interrupted).await?;
    hub.drain().await;
    Ok(())
}

async fn like(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Liked>, StatusCode> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let reader = app.authenticate(token)?;
    let post = app.posts.get(&id).ok_or(StatusCode::NOT_FOUND)?;
    if post.author != reader.user {
        let notification = Notification {
            r#type: "notification",
            event: "post_liked",
            post_id: id,
            post_title: post.title,
            liked_by: &reader.name,
        };
        let notification = serde_json::to_string(&notification).unwrap_or_default();
        // A like does not fail with its notification.
        if let Err(error) = app.hub.send_to_user(&post.author, notification).await {
            eprintln!("not notified: {error}");
        }
    }
    Ok(Json(Liked { liked: true }))
}

/// Authenticates, answers the handshake, and hands the connection over to the hub.
async fn connect(
    State(app): State<Arc<App>>,
    Query(Credentials { token }): Query<Credentials>,
    mut request: Request,
) -> Result<Response, StatusCode> {
    let identity = app.authenticate(&token)?;
    let response = match accept_upgrade(&request) {
        Ok(response) => response,
        Err(error) => return Ok((error.status(), error.to_string()).into_response()),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await.map(|upgraded| adopt(&app.hub, upgraded, identity)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("not adopted: {error}"),
            Err(error) => eprintln!("not upgraded: {error}"),
        }
    });
    Ok(response.map(Body::new))
}

impl App {
    fn authenticate(&self, token: &str) -> Result<Identity, StatusCode> {
        self.verifier.verify(token, SystemTime::now()).map_err(|_| StatusCode::UNAUTHORIZED)
    }
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

#[derive(Serialize)]
struct Notification<'a> {
    r#type: &'a str,
    event: &'a str,
    post_id: u64,
    post_title: &'a str,
    liked_by: &'a str,
}

#[derive(Serialize)]
struct Liked {
    liked: bool,
}
