use std::net::TcpListener;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::process::{API_KEY, File, SECRET, Serving, fanfare, outcome};

#[test]
fn serve_without_a_secret_says_how_to_give_one() {
    let (code, stdout, stderr) = outcome(&mut fanfare(&["serve", "--bind", "127.0.0.1:0"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    for hint in ["hmac_secret", "FANFARE_AUTH_HMAC_SECRET", "openssl rand"] {
        assert!(stderr.contains(hint), "{stderr}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["serve", "--port", "1"][..], &["sing"], &[], &["token"]] {
        let (code, stdout, stderr) = outcome(&mut fanfare(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!stderr.is_empty());
    }
    let (code, _, stderr) = outcome(&mut fanfare(&["serve", "--bind", "localhost"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("server.bind") && stderr.contains("--bind"), "{stderr}");
}

#[test]
fn who_reads_no_further_is_no_fault() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = fanfare(&["check"]).stdout(writer).output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_by_name() {
    let file = File::new("unknown-key", "[limits]\nmesage_bytes = 1\n");
    let (code, _, stderr) = outcome(&mut fanfare(&["check", "--config", file.path()]));
    assert_eq!(code, 2);
    assert!(stderr.contains("limits.mesage_bytes"), "{stderr}");
    assert!(stderr.contains("limits.message_bytes"), "{stderr}");
}

#[test]
fn a_bad_value_is_refused_with_its_name_and_what_is_allowed() {
    let text = "[heartbeat]\ninterval = \"soon\"\n[limits]\nring_messages = 3\n";
    let file = File::new("bad-value", text);
    for command in ["check", "serve"] {
        let (code, _, stderr) = outcome(&mut fanfare(&[command, "--config", file.path()]));
        assert_eq!(code, 2);
        for part in ["heartbeat.interval", "soon", "100ms", "limits.ring_messages", "3", "from 4"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    }
    let mut command = fanfare(&["serve"]);
    let (code, _, stderr) = outcome(command.env("FANFARE_DRAIN_TIMEOUT", "-1s"));
    assert_eq!(code, 2);
    assert!(
        stderr.contains("drain.timeout") && stderr.contains("FANFARE_DRAIN_TIMEOUT"),
        "{stderr}"
    );
}

#[test]
fn a_bad_log_filter_is_refused() {
    let mut command = fanfare(&["serve", "--bind", "127.0.0.1:0"]);
    command.env("FANFARE_AUTH_HMAC_SECRET", SECRET);
    let (code, _, stderr) = outcome(command.env("FANFARE_LOG_FILTER", "fanfare=loud"));
    assert_eq!(code, 2);
    assert!(stderr.contains("log.filter"), "{stderr}");
}

#[test]
fn no_secret_is_ever_printed() {
    let short = "short-and-secret";
    let file =
        File::new("secrets", &format!("[auth]\nhmac_secret = \"{SECRET}\"\n[api]\nkey = 7\n"));
    let mut outputs = vec![
        outcome(&mut fanfare(&["check", "--config", file.path()])),
        outcome(&mut fanfare(&["serve", "--config", file.path()])),
    ];
    for secret in ["tiny-secret", short, SECRET] {
        for command in ["check", "token"] {
            let mut command = fanfare(&[command]);
            if command.get_args().eq(["token"]) {
                command.args(["--sub", "1"]);
            }
            command.env("FANFARE_AUTH_HMAC_SECRET", secret).env("FANFARE_API_KEY", secret);
            outputs.push(outcome(&mut command));
        }
    }
    let server = Serving::start(&[("FANFARE_LOG_FILTER", "trace")]);
    drop(server.connect(1));
    server.signal(rustix::process::Signal::TERM);
    let (code, log) = server.end();
    outputs.push((code, String::new(), log));
    for (_, stdout, stderr) in outputs {
        for secret in ["tiny-secret", short, SECRET, API_KEY] {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
        }
    }
}

#[test]
fn check_tells_what_is_in_force_and_where_it_came_from() {
    let file = File::new(
        "check",
        "[heartbeat]\ninterval = \"20s\"\ntimeout = \"5s\"\n[namespace.news]\nhistory_size = 9\n",
    );
    let mut command = fanfare(&["check", "--config", file.path()]);
    command.env("FANFARE_HEARTBEAT_TIMEOUT", "6s").env("FANFARE_API_KEY", API_KEY);
    let (code, stdout, stderr) = outcome(&mut command);
    assert_eq!(code, 0);
    assert!(stderr.starts_with("warning: serve will not start: no token secret"), "{stderr}");
    assert!(stdout.starts_with("configuration ok\n"), "{stdout}");
    for line in [
        &format!("heartbeat.interval = 20s  # {}", file.path()),
        "heartbeat.timeout = 6s  # FANFARE_HEARTBEAT_TIMEOUT",
        "limits.outbox_bytes = 1MiB  # default",
        "channel.history_size = 0  # default",
        &format!("namespace.news.history_size = 9  # {}", file.path()),
        "namespace.news.publish = nobody  # default",
        "api.key = (set)  # FANFARE_API_KEY",
        "auth.hmac_secret = (not set)  # default",
    ] {
        assert!(stdout.lines().any(|it| it == line), "{line} in {stdout}");
    }
}

#[test]
fn hooks_that_can_ask_nobody_are_a_warning() {
    let mut command = fanfare(&["check"]);
    let (code, _, stderr) = outcome(command.env("FANFARE_HOOK_CALLS", "publish"));
    assert_eq!(code, 0);
    assert!(stderr.contains("hook.calls") && stderr.contains("hook.url"), "{stderr}");
}

#[test]
fn an_unknown_variable_is_a_warning_that_names_the_nearest_key() {
    let mut command = fanfare(&["check"]);
    let (code, _, stderr) = outcome(command.env("FANFARE_LIMITS_OUTBOX_BITES", "1MiB"));
    assert_eq!(code, 0);
    assert!(stderr.contains("FANFARE_LIMITS_OUTBOX_BITES"), "{stderr}");
    assert!(stderr.contains("limits.outbox_bytes"), "{stderr}");
    let server = Serving::start(&[("FANFARE_SERVICE_PORT_HTTP", "tcp://10.0.0.1:80")]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_busy_port_is_a_clear_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = fanfare(&["serve", "--bind", &address]);
    let (code, _, stderr) = outcome(command.env("FANFARE_AUTH_HMAC_SECRET", SECRET));
    assert_eq!(code, 1);
    assert!(stderr.contains(&address) && stderr.contains("--bind"), "{stderr}");
}

#[test]
fn a_token_holds_what_was_asked_for() {
    let claims = |arguments: &[&str]| -> Value {
        let mut command = fanfare(&["token"]);
        let command = command.args(arguments).env("FANFARE_AUTH_HMAC_SECRET", SECRET);
        let (code, stdout, stderr) = outcome(command);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let claims = stdout.trim().split('.').nth(1).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    };
    let ada = claims(&["--sub", "42", "--name", "Ada", "--ttl", "2h"]);
    assert_eq!((&ada["sub"], &ada["name"]), (&42.into(), &"Ada".into()));
    let lifetime = ada["exp"].as_u64().unwrap() - ada["iat"].as_u64().unwrap();
    assert!((7200..7202).contains(&lifetime), "{ada}");
    let text = claims(&["--sub", "042"]);
    assert_eq!((&text["sub"], &text["name"]), (&"042".into(), &"User 042".into()));
    assert_eq!(claims(&["--sub", "-7"])["sub"], -7);
    let subscription = claims(&["--sub", "42", "--channel", "news:a"]);
    assert_eq!((&subscription["sub"], &subscription["channel"]), (&42.into(), &"news:a".into()));
    assert!(subscription["exp"].is_u64() && subscription.get("name").is_none(), "{subscription}");
}

#[test]
fn a_token_that_cannot_be_made_says_why() {
    for (arguments, hint) in [
        (&["--sub", ""][..], "128"),
        (&["--sub", &"x".repeat(129)], "128"),
        (&["--sub", "1", "--name", &"x".repeat(257)], "the name takes"),
        (&["--sub", "1", "--ttl", "soon"], "--ttl"),
    ] {
        let mut command = fanfare(&["token"]);
        let command = command.args(arguments).env("FANFARE_AUTH_HMAC_SECRET", SECRET);
        let (code, stdout, stderr) = outcome(command);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains(hint), "{stderr}");
    }
    let (code, _, stderr) = outcome(&mut fanfare(&["token", "--sub", "1"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("FANFARE_AUTH_HMAC_SECRET"), "{stderr}");
}

#[test]
fn a_value_that_is_no_text_is_refused_and_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = fanfare(&["check"]);
    command.env("FANFARE_API_KEY", std::ffi::OsStr::from_bytes(b"sixteen bytes or \xff"));
    let (code, _, stderr) = outcome(&mut command);
    assert_eq!((code, stderr.trim()), (2, "fanfare: FANFARE_API_KEY is not UTF-8; use text"));
}
