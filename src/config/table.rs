//! The table of keys, in the order of the documentation.

use std::time::Duration;

use super::key::{
    CHANNEL_NAME, FILE, FILTER, Key, Kind, NAME, NAMESPACE_NAME, NATS_URL, PREFIX, REDIS_URL,
    SECRET_BYTES_MIN, URL, USER,
};

/// Every key. Names in the environment, parsing, bounds, documentation and suggestions all derive
/// from it.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "server.bind",
        "Address and port to listen on. Put a proxy that speaks TLS in front of a public one.",
        Kind::Address(|c| &mut c.server.bind),
    ),
    Key::new(
        "server.internal_bind",
        "Address and port on which the API, metrics, health and the page listen, and then on no other. Keep it from the public.",
        Kind::AddressOrNone(|c| &mut c.server.internal_bind),
    ),
    Key::new(
        "server.shards",
        "Threads that own connections, by default one a core. More use more cores; fewer join more publishes into one send.",
        Kind::Count(|c| &mut c.server.shards, 1..=1024),
    ),
    Key::new(
        "server.allowed_origins",
        "Origins whose pages may read `/sse` from another origin, with their credentials. A page of the server's own origin always may.",
        Kind::Origins(|c| &mut c.server.allowed_origins),
    ),
    Key::new(
        "auth.hmac_secret",
        "The key of tokens. Without it the server does not start; under 32 bytes it warns (RFC 7518 section 3.2).",
        Kind::Secret(|c| &mut c.auth.hmac_secret, SECRET_BYTES_MIN),
    ),
    Key::new(
        "auth.algorithms",
        "The algorithms that a token may name.",
        Kind::Algorithms(|c| &mut c.auth.algorithms),
    ),
    Key::new(
        "auth.anonymous",
        "What those without a token may do at `/connection/websocket` and `/sse`: nothing, or connect and subscribe in namespaces that allow it.",
        Kind::Choice(|c| &mut c.auth.anonymous),
    ),
    Key::new(
        "auth.personal_channel",
        "Whether each user is subscribed by the server to a channel of its own, `#` and the user's name.",
        Kind::Choice(|c| &mut c.auth.personal_channel),
    ),
    Key::new(
        "auth.personal_namespace",
        "The namespace of those channels, as in `ns:#42`.",
        Kind::Text(|c| &mut c.auth.personal_namespace, NAMESPACE_NAME),
    ),
    Key::new(
        "api.key",
        "What `X-API-Key` must carry. Without it the HTTP API is off.",
        Kind::Secret(|c| &mut c.api.key, SECRET_BYTES_MIN),
    ),
    Key::new(
        "channel.history_size",
        "Publications that a channel remembers, for those who were cut off; 0 is none.",
        Kind::Count(|c| &mut c.channel.history_size, 0..=1_000_000),
    ),
    Key::new(
        "channel.history_ttl",
        "How long a channel remembers each.",
        Kind::Duration(|c| &mut c.channel.history_ttl, TENTH..=DAYS_30),
    ),
    Key::new(
        "channel.recovery",
        "What a subscriber that was cut off is given: nothing, everything since its position (or word that this is not possible), or the latest publication alone.",
        Kind::Choice(|c| &mut c.channel.recovery),
    ),
    Key::new(
        "channel.presence",
        "Whether who is subscribed can be asked for.",
        Kind::Choice(|c| &mut c.channel.presence),
    ),
    Key::new(
        "channel.join_leave",
        "Whether subscribers are told of each other, by user or by connection: n of them cost n² deliveries.",
        Kind::Choice(|c| &mut c.channel.join_leave),
    ),
    Key::new(
        "channel.subscribe",
        "Who may subscribe: anyone who is connected, who has a token for the channel, or the users that its name lists after a `#`.",
        Kind::Choice(|c| &mut c.channel.subscribe),
    ),
    Key::new(
        "channel.publish",
        "Which connections may publish: none, subscribers, or those whose token says so. A backend always may.",
        Kind::Choice(|c| &mut c.channel.publish),
    ),
    Key::new(
        "channel.anonymous",
        "Whether those without a user may subscribe, if `auth.anonymous` lets them in.",
        Kind::Choice(|c| &mut c.channel.anonymous),
    ),
    Key::new(
        "channel.max_subscribers",
        "Subscribers of one channel; over it error 106. 0 is no limit.",
        Kind::Count(|c| &mut c.channel.max_subscribers, 0..=10_000_000),
    ),
    Key::new(
        "channel.max_bytes",
        "Bytes of one publication's data; over it error 106. 0 is `limits.message_bytes`.",
        Kind::Size(|c| &mut c.channel.max_bytes, 0..=256 * MIB),
    ),
    Key::new(
        "chat.channel",
        "The channel that the chat is: what is said in the chat is a publication there, and a publication there is said in the chat.",
        Kind::Text(|c| &mut c.chat.channel, CHANNEL_NAME),
    ),
    Key::new(
        "chat.announce",
        "Whether users joining and leaving are told to all.",
        Kind::Choice(|c| &mut c.chat.announce),
    ),
    Key::new(
        "chat.announce_users",
        "Users present above which joins and leaves give way to a count, at most once a second: n of them cost n² deliveries.",
        Kind::Count(|c| &mut c.chat.announce_users, 0..=1_000_000),
    ),
    Key::new(
        "chat.linger",
        "How long after its last connection a user is still present, so that reloading a page is no leave.",
        Kind::Duration(|c| &mut c.chat.linger, Duration::ZERO..=HOUR),
    ),
    Key::new(
        "heartbeat.interval",
        "Time between pings to each connection. Shorter finds the dead sooner and keeps proxies' idle timers quiet; longer costs less.",
        Kind::Duration(|c| &mut c.heartbeat.interval, TENTH..=HOUR),
    ),
    Key::new(
        "heartbeat.timeout",
        "Time after a ping reached the kernel within which some frame must arrive; over it 3012.",
        Kind::Duration(|c| &mut c.heartbeat.timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.message_bytes",
        "Bytes of one message's payload, in or out; over it 1009, or error 106 of the API.",
        Kind::Size(|c| &mut c.limits.message_bytes, 125..=256 * MIB),
    ),
    Key::new(
        "limits.message_timeout",
        "Time from a message's first byte to its last; over it 3501.",
        Kind::Duration(|c| &mut c.limits.message_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.outbox_bytes",
        "Bytes that may wait for one connection; over it 3008. More forgives longer stalls; less bounds what they cost.",
        Kind::Size(|c| &mut c.limits.outbox_bytes, KIB..=GIB),
    ),
    Key::new(
        "limits.outbox_age",
        "Age of the oldest byte that waits for one connection; over it 3008.",
        Kind::Duration(|c| &mut c.limits.outbox_age, TENTH..=HOUR),
    ),
    Key::new(
        "limits.memory",
        "Bytes that outboxes, ring and partial messages hold together; over it the largest laggard is closed with 3008 first.",
        Kind::Size(|c| &mut c.limits.memory, MIB..=1024 * GIB),
    ),
    Key::new(
        "limits.ring_messages",
        "Publishes that wait for the slowest shard; over it publishing connections wait and the API answers error 111.",
        Kind::Count(|c| &mut c.limits.ring_messages, 4..=1 << 20),
    ),
    Key::new(
        "limits.ring_bytes",
        "Bytes of those publishes, each counting 64 more.",
        Kind::Size(|c| &mut c.limits.ring_bytes, 16 * KIB..=512 * GIB),
    ),
    Key::new(
        "limits.publish_wait",
        "Time a publishing connection waits for room in the ring before error 111.",
        Kind::Duration(|c| &mut c.limits.publish_wait, MS..=MINUTE),
    ),
    Key::new(
        "limits.broker_bytes",
        "Bytes that came from the broker and wait for room in the ring, each message counting 64 more; over it the node connects anew, and reads what it lacks.",
        Kind::Size(|c| &mut c.limits.broker_bytes, MIB..=1024 * GIB),
    ),
    Key::new(
        "limits.channels",
        "Channels of this node; over it error 106.",
        Kind::Count(|c| &mut c.limits.channels, 1..=1 << 24),
    ),
    Key::new(
        "limits.channel_bytes",
        "Bytes of a channel's name; over it error 107.",
        Kind::Size(|c| &mut c.limits.channel_bytes, 16..=4 * KIB),
    ),
    Key::new(
        "limits.subscriptions",
        "Channels that one connection is subscribed to; over it error 106.",
        Kind::Count(|c| &mut c.limits.subscriptions, 1..=1 << 20),
    ),
    Key::new(
        "limits.history_bytes",
        "Bytes that the histories of all channels hold together, each publication counting 64 more; over it the channel that is published to forgets its oldest.",
        Kind::Size(|c| &mut c.limits.history_bytes, 16 * KIB..=1024 * GIB),
    ),
    Key::new(
        "limits.idempotency_keys",
        "Idempotency keys of the API's publishes that are remembered, each for 5 minutes; over it the oldest is forgotten. Each takes about 250 bytes.",
        Kind::Count(|c| &mut c.limits.idempotency_keys, 1..=1 << 24),
    ),
    Key::new(
        "limits.connections",
        "Open sockets; over it accept answers 503, at `server.internal_bind` 16 later. The default follows the descriptor limit, raised to its hard bound at start.",
        Kind::Connections(|c| &mut c.limits.connections),
    ),
    Key::new(
        "limits.inbox",
        "Arrivals that wait for one shard; when all shards are full accept answers 503.",
        Kind::Count(|c| &mut c.limits.inbox, 1..=1 << 20),
    ),
    Key::new(
        "limits.handshake_timeout",
        "Time from a request's first byte (on a new connection from accept) to its last; over it 408.",
        Kind::Duration(|c| &mut c.limits.handshake_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.keepalive_timeout",
        "Time an HTTP connection may idle between requests.",
        Kind::Duration(|c| &mut c.limits.keepalive_timeout, TENTH..=HOUR),
    ),
    Key::new(
        "limits.header_bytes",
        "Bytes of a request's line and headers; over it 431.",
        Kind::Size(|c| &mut c.limits.header_bytes, 8 * KIB..=MIB),
    ),
    Key::new(
        "limits.request_bytes",
        "Bytes of an API request's body; over it 413.",
        Kind::Size(|c| &mut c.limits.request_bytes, KIB..=GIB),
    ),
    Key::new(
        "limits.close_timeout",
        "Time a closing connection may take to answer before its socket is cut.",
        Kind::Duration(|c| &mut c.limits.close_timeout, TENTH..=MINUTE),
    ),
    Key::new(
        "drain.spread",
        "Time over which a draining server closes its connections, so that they do not all return at once.",
        Kind::Duration(|c| &mut c.drain.spread, Duration::ZERO..=HOUR),
    ),
    Key::new(
        "drain.timeout",
        "Time after which a draining server ends, whatever is left.",
        Kind::Duration(|c| &mut c.drain.timeout, TENTH..=HOUR),
    ),
    Key::new(
        "log.filter",
        "What is logged, to standard error.",
        Kind::Text(|c| &mut c.log.filter, FILTER),
    ),
    Key::new(
        "hook.url",
        "Where the application is asked and told, by signed POST. Without it nobody is.",
        Kind::Text(|c| &mut c.hook.url, URL),
    ),
    Key::new(
        "hook.secret",
        "What those POSTs are signed with, by HMAC-SHA256. Must be set beside `hook.url`.",
        Kind::Secret(|c| &mut c.hook.secret, SECRET_BYTES_MIN),
    ),
    Key::new(
        "hook.calls",
        "What the application is asked (`connect`, `subscribe`, `publish`, `message`, `rpc`) and told of (`users`, `channels`). Each question costs its peer a round trip.",
        Kind::Calls(|c| &mut c.hook.calls),
    ),
    Key::new(
        "hook.timeout",
        "Time that an answer may take. The peer that is asked about is read no further meanwhile, and no other.",
        Kind::Duration(|c| &mut c.hook.timeout, HUNDREDTH..=MINUTE),
    ),
    Key::new(
        "hook.on_failure",
        "What becomes of a question without an answer in time: it is refused (error 100, try again), or goes on as if there were no hook.",
        Kind::Choice(|c| &mut c.hook.on_failure),
    ),
    Key::new(
        "hook.concurrency",
        "Questions under way at once; further ones wait, within their time. As many as the application has workers.",
        Kind::Count(|c| &mut c.hook.concurrency, 1..=4096),
    ),
    Key::new(
        "hook.queue",
        "Notices that wait until the application takes them; over it the oldest is dropped.",
        Kind::Count(|c| &mut c.hook.queue, 1..=1_000_000),
    ),
    Key::new(
        "broker.kind",
        "What the nodes meet over. With `local` there is one.",
        Kind::Choice(|c| &mut c.broker.kind),
    ),
    Key::new(
        "broker.prefix",
        "What the names begin with of all that is kept at the broker. Nodes with the same are one cluster, so that several may share a broker.",
        Kind::Text(|c| &mut c.broker.prefix, PREFIX),
    ),
    Key::new(
        "broker.ready",
        "When a doubt about the broker makes `/ready` say no: once it lasts 10 s, or at once. `/ready?strict` always says no at once.",
        Kind::Choice(|c| &mut c.broker.ready),
    ),
    Key::new(
        "broker.timeout",
        "How long a publish or a subscription waits for a broker that is not there, before error 100.",
        Kind::Duration(|c| &mut c.broker.timeout, TENTH..=MINUTE),
    ),
    Key::new(
        "broker.lease",
        "How long a node that is gone without a word still counts: after that its users and connections leave, all at once.",
        Kind::Duration(|c| &mut c.broker.lease, SECONDS_4..=HOUR),
    ),
    Key::new(
        "broker.redis.url",
        "Where the server is, with user and number of the database if it needs them; `rediss` is TLS. Of Sentinels or a cluster several, separated by commas.",
        Kind::Text(|c| &mut c.broker.redis.url, REDIS_URL),
    ),
    Key::new(
        "broker.redis.mode",
        "What is there: one server, Sentinels that know which server is the primary, or a cluster.",
        Kind::Choice(|c| &mut c.broker.redis.mode),
    ),
    Key::new(
        "broker.redis.primary",
        "What the Sentinels call the primary.",
        Kind::Text(|c| &mut c.broker.redis.primary, NAME),
    ),
    Key::new(
        "broker.redis.sentinel_password",
        "The password of the Sentinels themselves, if they have one.",
        Kind::Secret(|c| &mut c.broker.redis.sentinel_password, 1),
    ),
    Key::new(
        "broker.redis.password",
        "The password of that user.",
        Kind::Secret(|c| &mut c.broker.redis.password, 1),
    ),
    Key::new(
        "broker.redis.ca_file",
        "Certificates to trust for TLS, as PEM, instead of the system's.",
        Kind::Text(|c| &mut c.broker.redis.ca_file, FILE),
    ),
    Key::new(
        "broker.nats.url",
        "Where the servers are, of which one that answers is taken; `tls` is TLS.",
        Kind::Text(|c| &mut c.broker.nats.url, NATS_URL),
    ),
    Key::new(
        "broker.nats.user",
        "The user, if the servers ask for one.",
        Kind::Text(|c| &mut c.broker.nats.user, USER),
    ),
    Key::new(
        "broker.nats.password",
        "The password of that user.",
        Kind::Secret(|c| &mut c.broker.nats.password, 1),
    ),
    Key::new(
        "broker.nats.token",
        "The token, if the servers ask for that instead of a user.",
        Kind::Secret(|c| &mut c.broker.nats.token, 1),
    ),
    Key::new(
        "broker.nats.ca_file",
        "Certificates to trust for TLS, as PEM, instead of the system's.",
        Kind::Text(|c| &mut c.broker.nats.ca_file, FILE),
    ),
];

const MS: Duration = Duration::from_millis(1);
const HUNDREDTH: Duration = Duration::from_millis(10);
const TENTH: Duration = Duration::from_millis(100);
const SECONDS_4: Duration = Duration::from_secs(4);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAYS_30: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
