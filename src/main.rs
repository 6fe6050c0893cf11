//! STUB
use fanfare::*;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let mut c = Config::default();
    c.auth.hmac_secret = Some(config::Secret::new("a secret for tests, 32 bytes long"));
    c.api.key = Some(config::Secret::new("an api key for tests"));
    c.server.shards = std::env::var("SHARDS").map_or(1, |s| s.parse().unwrap());
    c.server.dev = true;
    c.chat.announce = config::Announce::Off;
    let l = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    println!(
        "{}",
        auth::sign(&c.auth, &Identity::new(UserId::from(1)), std::time::Duration::from_secs(86400))
            .unwrap()
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(serve(l, c, async { tokio::signal::ctrl_c().await.unwrap() }))
        .unwrap();
}
