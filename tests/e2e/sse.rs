use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::ports::free_port;
use crate::support::{Service, fanfare, node, program, run, with_secrets};

#[test]
fn curl_shows_what_is_published() {
    let server = Service::fanfare();
    let mut lines = server.lines.iter().filter(|line| line.contains("curl "));
    let stream = lines.find(|line| line.contains("/sse?")).unwrap();
    let publish = lines.next().unwrap();
    // So that the shell is gone once it is curl's turn, and curl is what is killed.
    let mut curl = program("sh", &["-c", &format!("exec {}", stream.trim())]);
    let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(curl.stdout.take().unwrap()).lines().map(Result::unwrap);
    let position = shown.next().unwrap();
    let epoch = position.strip_prefix("id: ").unwrap().strip_suffix(":0").unwrap();
    assert_eq!(shown.next().as_deref(), Some(""));
    run(&with_secrets(program("sh", &["-c", &publish])));
    let event: Vec<_> = shown.by_ref().take(4).collect();
    let id = format!("id: {epoch}:1");
    assert_eq!(event, [&*id, "event: news", r#"data: {"text":"hello, readers"}"#, ""]);
    curl.kill().unwrap();
    curl.wait().unwrap();
}

#[test]
fn a_page_follows_channels_and_comes_back_by_itself() {
    Service::fanfare().run(node("event_source.mjs", &["/usr/bin/chromium", "follow"]));
}

#[test]
fn a_page_of_an_allowed_origin_follows_channels() {
    let port = free_port();
    let mut dev = fanfare(&["dev", "--bind", &format!("127.0.0.1:{port}")]);
    dev.env("FANFARE_SERVER_ALLOWED_ORIGINS", format!("http://localhost:{port}"));
    Service::start(dev).run(node("event_source.mjs", &["/usr/bin/chromium", "cross"]));
}
