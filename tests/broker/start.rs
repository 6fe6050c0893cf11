//! What a node says that cannot start for its broker.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use fanfare::config::{BrokerKind, RedisMode, Secret};
use fanfare::{Config, Hub};

use crate::nats::Nats;
use crate::ports::free_port;
use crate::redis::Redis;
use crate::redis_tls::RedisTls;

/// The error of a start, which must come soon.
fn fault(set: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    config.broker.kind = BrokerKind::Redis;
    set(&mut config);
    let begun = Instant::now();
    let error = Hub::start(config).unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(8), "{error}: {:?}", begun.elapsed());
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let port = free_port();
    let text = fault(|config| config.broker.redis.url = format!("redis://127.0.0.1:{port}"));
    assert!(text.contains(&format!("broker.redis.url: 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("refused") && text.contains("is the server running there?"), "{text}");
}

#[test]
fn a_server_that_says_nothing_is_told() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let text = fault(|config| config.broker.redis.url = format!("redis://{address}"));
    assert!(text.contains("nothing answers there within 3 s"), "{text}");
}

#[test]
fn a_password_that_is_wrong_or_missing_is_told() {
    let redis = Redis::with(&["--requirepass", "right"]);
    for password in [None, Some("wrong")] {
        let text = fault(|config| {
            config.broker.redis.url = redis.url();
            config.broker.redis.password = password.map(Secret::new);
        });
        assert!(text.contains("broker.redis.password") && !text.contains("wrong;"), "{text}");
    }
    let mut config = Config::default();
    config.broker.kind = BrokerKind::Redis;
    config.broker.redis.url = redis.url();
    config.broker.redis.password = Some(Secret::new("right"));
    assert!(Hub::start(config).is_ok());
}

#[test]
fn a_user_without_rights_to_the_prefix_is_told() {
    let redis = Redis::start();
    redis.cli(&["acl", "setuser", "default", "resetkeys", "resetchannels", "~app:*", "&app:*"]);
    let text = fault(|config| config.broker.redis.url = redis.url());
    assert!(text.ends_with("and ~<broker.prefix>:* &<broker.prefix>:*"), "{text}");
    let mut config = Config::default();
    (config.broker.kind, config.broker.redis.url) = (BrokerKind::Redis, redis.url());
    config.broker.prefix = "app".to_owned();
    assert!(Hub::start(config).is_ok());
}

#[test]
fn what_is_no_server_of_redis_is_told() {
    let nats = Nats::start();
    let text = fault(|config| config.broker.redis.url = nats.url().replace("nats", "redis"));
    assert!(text.ends_with("; is it a server of Redis?"), "{text}");
}

#[test]
fn a_certificate_that_is_not_trusted_is_told() {
    let redis = RedisTls::start();
    let text = fault(|config| config.broker.redis.url = redis.url());
    assert!(text.contains("broker.redis.url: ") && text.contains("ertificate"), "{text}");
    let text = fault(|config| {
        config.broker.redis.url = redis.url();
        config.broker.redis.ca_file = "/no/such/file".to_owned();
    });
    assert!(text.contains("broker.redis.ca_file: /no/such/file"), "{text}");
}

#[test]
fn encryption_where_there_is_none_is_told() {
    let redis = Redis::start();
    let text = fault(|config| config.broker.redis.url = redis.url().replace("redis:", "rediss:"));
    assert!(text.contains("broker.redis.url"), "{text}");
}

#[test]
fn a_mode_that_the_server_is_not_in_is_told() {
    let redis = Redis::start();
    let text = fault(|config| {
        config.broker.redis.url = redis.url();
        config.broker.redis.mode = RedisMode::Cluster;
    });
    assert!(text.contains("set broker.redis.mode to single"), "{text}");
    let text = fault(|config| {
        config.broker.redis.url = redis.url();
        config.broker.redis.mode = RedisMode::Sentinel;
    });
    assert!(text.contains("broker.redis"), "{text}");
}

#[test]
fn what_is_no_url_or_no_prefix_is_told() {
    let text = fault(|config| config.broker.redis.url = "redis://:a-password@h".to_owned());
    assert!(text.contains("without a password") && !text.contains("a-password"), "{text}");
    let text = fault(|config| config.broker.redis.url = "localhost:6379".to_owned());
    assert!(text.starts_with("broker.redis.url: localhost:6379 is not allowed"), "{text}");
    let text = fault(|config| config.broker.prefix = "a:{b}".to_owned());
    assert!(text.starts_with("broker.prefix: a:{b} is not allowed"), "{text}");
}
