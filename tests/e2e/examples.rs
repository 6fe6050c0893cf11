use std::path::Path;

use crate::support::{FANFARE, Service, fanfare, node, path, program, python, run, with_secrets};

#[test]
fn the_axum_app_notifies_the_author_in_every_tab() {
    let like = Path::new(FANFARE).with_file_name("examples").join("like");
    let app = Service::start(with_secrets(program(like, &["127.0.0.1:0"])));
    app.run(python("like.py", &[&app.url, &websocket(&app, "/ws")]));
}

#[test]
fn the_fastapi_app_notifies_the_author_in_every_tab() {
    let server = Service::fanfare();
    let directory = path("examples/fastapi");
    let options = ["main:app", "--port", "0", "--app-dir", directory.to_str().unwrap()];
    let mut uvicorn = with_secrets(program(path(".venv/bin/uvicorn"), &options));
    uvicorn.env("FANFARE_URL", &server.url);
    let app = Service::start(uvicorn);
    server.run(python("like.py", &[&app.url, &websocket(&server, "/ws/chat")]));
}

#[test]
fn the_live_feed_shows_prices_and_what_came_while_it_was_away() {
    let config = path("examples/live-feed/fanfare.toml");
    let config = config.to_str().unwrap();
    let server = Service::start(fanfare(&["serve", "--config", config, "--bind", "127.0.0.1:0"]));
    let directory = path("examples/live-feed");
    let arguments = ["/usr/bin/chromium", directory.to_str().unwrap()];
    server.run(node("live_feed.mjs", &arguments));
}

#[test]
fn the_hooks_app_moderates_the_chat_and_knows_who_is_there() {
    let secret = ("FANFARE_HOOK_SECRET", "a secret of hooks for tests");
    let directory = path("examples/hooks");
    let options = ["main:app", "--port", "0", "--app-dir", directory.to_str().unwrap()];
    let mut uvicorn = program(path(".venv/bin/uvicorn"), &options);
    uvicorn.env(secret.0, secret.1);
    let app = Service::start(uvicorn);
    let mut server = fanfare(&["dev", "--bind", "127.0.0.1:0"]);
    server.env("FANFARE_HOOK_URL", format!("{}/hook", app.url)).env(secret.0, secret.1);
    server.env("FANFARE_HOOK_CALLS", "publish,rpc,users").env("FANFARE_CHAT_LINGER", "100ms");
    let server = Service::start(server);
    let paths = ["/ws/chat", "/connection/websocket"].map(|path| websocket(&server, path));
    server.run(python("hooks.py", &[&paths[0], &paths[1]]));
}

#[test]
fn the_fastapi_app_tries_again_after_a_503() {
    let directory = path("examples/fastapi");
    run(&with_secrets(python("overloaded.py", &[directory.to_str().unwrap()])));
}

fn websocket(service: &Service, path: &str) -> String {
    format!("{}{path}", service.url.replace("http", "ws"))
}
