//! The command line.

mod cluster;

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::cluster::{Broker, Cluster};
use crate::channels::CHANNELS_MAX;
use crate::crowd;
use crate::mark::Mark;
use crate::schedule::Rate;

/// Load tester for fanfare: what fan-out costs, and what it survives.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish to many subscribers; measure latency, and CPU and memory of the server.
    Fanout(Fanout),
    /// Connect many, drop all, connect again, beside a feed; compare its latency with quiet times.
    Storm(Storm),
    /// Let peers stall among those that read; compare latencies, and count what the stalled find.
    Stalled(Stalled),
    /// Subscribe many connections to many channels; measure CPU and memory of the server.
    Subscribe(Subscribe),
    /// Cut many subscribers and have them come back; check that they recover what they missed.
    Recover(Recover),
    /// Check that every admitted publish comes once and in order at every connection.
    Audit(Audit),
    /// Start nodes and a broker, kill them again and again; check that subscribers that go from node to
    /// node miss nothing.
    Cluster(Cluster),
    /// Have one peer flood pongs and tiny fragments; time another's pings.
    Flood(Flood),
    /// Serve the yardstick: fan-out with no features at all.
    Floor {
        /// Address and port to listen on; port 0 takes a free one, which is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        bind: SocketAddr,
        /// Send each frame to one connection, in turn, rather than to all.
        #[arg(long)]
        unicast: bool,
    },
}

/// The server that is tested.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// Scheme, host and port of the server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The server's auth.hmac_secret, to sign tokens with; also FANFARE_AUTH_HMAC_SECRET.
    #[arg(long, env = "FANFARE_AUTH_HMAC_SECRET", hide_env_values = true)]
    pub(crate) secret: String,
    /// The server's process, to measure its CPU and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Subscribers; each is a user of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Publishes a second; max is as fast as they are taken.
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub(crate) rate: Rate,
    /// How many publishes are due at once: with more than 1 it is the publisher, and not the
    /// server's own pace, that decides how many frames can share a send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) burst: u32,
    /// Bytes of a body.
    #[arg(long, default_value = "128", value_parser = size)]
    pub(crate) size: usize,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long to publish before that.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    /// How long after the connects, and after one burst to all, memory is read.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
    /// What the subscribers speak.
    #[arg(long, default_value = "chat")]
    pub(crate) protocol: Protocol,
    /// Channels that publishes go to in turn; the server's channel.subscribe must be anyone.
    #[arg(long, default_value_t = 1, value_parser = channels())]
    pub(crate) channels: u32,
    /// Channels that each subscriber subscribes to.
    #[arg(long, default_value_t = 1, value_parser = channels())]
    pub(crate) subscriptions_per_connection: u32,
    /// Who publishes.
    #[arg(long, default_value = "peer")]
    pub(crate) publish: Publish,
    /// The server's api.key, to publish over HTTP.
    #[arg(long, env = "FANFARE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Publish to another node of the server's cluster: its scheme, host and port.
    #[arg(long, conflicts_with = "compare")]
    pub(crate) publish_url: Option<String>,
    /// Another node of the server's cluster, where as many subscribe, whose deliveries are counted
    /// for themselves; may be given again.
    #[arg(long, value_name = "URL", conflicts_with = "compare")]
    pub(crate) beside: Vec<String>,
    /// Measure something else in turn, on the same CPUs, with frames of the same length.
    #[arg(long, requires = "pid", value_name = "YARDSTICK")]
    pub(crate) compare: Option<Yardstick>,
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The server's api.key: the feed is pushed to one user, whose connections are its subscribers.
    #[arg(long, env = "FANFARE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: String,
    /// How many connect.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Subscribers of the feed.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) feed_connections: u32,
    /// The feed's publishes a second.
    #[arg(long, default_value = "20", value_parser = pace)]
    pub(crate) feed_rate: f64,
    /// Bytes of a body of the feed.
    #[arg(long, default_value = "128", value_parser = size)]
    pub(crate) size: usize,
    /// How long the feed runs before the storm.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) quiet: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Stalled {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Subscribers that read.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Subscribers that do not.
    #[arg(long, default_value_t = 100)]
    pub(crate) stalled: u32,
    /// Publishes a second.
    #[arg(long, default_value = "25", value_parser = pace)]
    pub(crate) rate: f64,
    /// Bytes of a body.
    #[arg(long, default_value = "16384", value_parser = size)]
    pub(crate) size: usize,
    /// How long to publish without the stalled ones, and again with them.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long the stalled ones may read before they find the end: limits.outbox_age and a little.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Subscribe {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How many connect.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// How many channels there are; the server's channel.subscribe must be anyone.
    #[arg(long, default_value_t = 100, value_parser = channels())]
    pub(crate) channels: u32,
    /// Channels that each subscribes to, by one frame.
    #[arg(long, default_value_t = 100, value_parser = channels())]
    pub(crate) subscriptions_per_connection: u32,
    /// How long after the connects, and after the subscribes, memory is read.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The server's api.key, to publish what is missed.
    #[arg(long, env = "FANFARE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: String,
    /// How many are cut.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// How many channels there are; the server's channel.subscribe must be anyone.
    #[arg(long, default_value_t = 1000, value_parser = channels())]
    pub(crate) channels: u32,
    /// Channels that each subscribes to.
    #[arg(long, default_value_t = 10, value_parser = channels())]
    pub(crate) subscriptions_per_connection: u32,
    /// What is published to each channel while nobody listens.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) missed: u32,
    /// Bytes of a body.
    #[arg(long, default_value = "128", value_parser = size)]
    pub(crate) size: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The server's api.key: every second publisher uses HTTP.
    #[arg(long, env = "FANFARE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: String,
    /// Subscribers that do not publish.
    #[arg(long, default_value_t = 200)]
    pub(crate) connections: u32,
    /// Who publish, over chat and over HTTP in turn.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) publishers: u16,
    /// Publishes a second of each; max is as fast as they are taken.
    #[arg(long, default_value = "250", value_parser = rate)]
    pub(crate) rate: Rate,
    /// Bytes of a body.
    #[arg(long, default_value = "128", value_parser = size)]
    pub(crate) size: usize,
    /// How long to publish.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Audit so many channels instead of the chat, and cut and stall subscribers, who must recover.
    /// The server's channel.subscribe must be anyone, its channel.publish subscribers, and its
    /// channel.recovery stream.
    #[arg(long, value_parser = channels())]
    pub(crate) channels: Option<u32>,
    /// Channels that each subscriber subscribes to.
    #[arg(long, default_value_t = 5, value_parser = channels(), requires = "channels")]
    pub(crate) subscriptions_per_connection: u32,
    /// How long a connection lives on average; three of four are then cut, the others stall.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, requires = "channels")]
    pub(crate) life: Duration,
    /// How long one that stalls does not read; above the server's limits.outbox_age it finds the end.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration, requires = "channels")]
    pub(crate) stall: Duration,
    /// Publications of a channel that must be recovered: the server's channel.history_size, at most
    /// the 300 that it gives at once.
    #[arg(long, default_value_t = crowd::WINDOW, requires = "channels")]
    pub(crate) window: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How long to flood.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Chat, which all get all of.
    Chat,
    /// The Centrifuge protocol.
    Centrifuge,
    /// Server-Sent Events.
    Sse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Publish {
    /// A connection like the subscribers', to channels as a subscriber of all of them; then
    /// the server's channel.publish must be subscribers.
    Peer,
    /// A backend, over one pipelined HTTP connection.
    Http,
    /// The same, to channels, with all that is due at once, or a --burst of it, in one call of `batch`.
    Batch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Yardstick {
    /// The floor server, sending to all.
    Floor,
    /// The floor server, sending each frame to one.
    Unicast,
    /// The chat of the same server.
    Chat,
}

impl Yardstick {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Unicast => "unicast",
            Self::Chat => "chat",
        }
    }
}

fn channels() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=CHANNELS_MAX)
}

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" | "0" => Ok(Rate::FlatOut),
        text => pace(text).map(Rate::PerSecond).map_err(|error| error + ", or max"),
    }
}

fn pace(text: &str) -> Result<f64, String> {
    let pace = text.parse().ok().filter(|pace: &f64| pace.is_finite() && *pace > 0.0);
    pace.ok_or_else(|| "use a number above 0".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (Mark::BYTES..=SIZE_MAX).contains(size));
    size.ok_or_else(|| format!("use {} to {SIZE_MAX} bytes", Mark::BYTES))
}

/// Bytes of the largest body.
const SIZE_MAX: usize = 1 << 24;

const EXAMPLES: &str = "Examples:
  fanfare-loadtest fanout --connections 1000 --rate 6000 --pid $(pidof fanfare)
  fanfare-loadtest fanout --rate 20 --compare floor --rounds 5 --pid $(pidof fanfare) --json
  fanfare-loadtest storm --connections 10000
  fanfare-loadtest stalled --connections 1000 --stalled 100 --pid $(pidof fanfare)
  fanfare-loadtest fanout --protocol centrifuge --publish http --channels 100 --connections 1000
  fanfare-loadtest subscribe --connections 1000 --channels 100 --pid $(pidof fanfare)
  fanfare-loadtest recover --connections 5000 --channels 1000
  fanfare-loadtest audit --publishers 4 --rate 1000
  fanfare-loadtest audit --channels 20 --duration 10m
  fanfare-loadtest cluster --fanfare $(which fanfare) --duration 10m

Exit codes: 0 done, 1 failed, 2 wrong usage, or the server could not be used.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number_or_max() {
        assert_eq!(rate("0.5"), Ok(Rate::PerSecond(0.5)));
        assert_eq!(rate("max"), Ok(Rate::FlatOut));
        assert_eq!(rate("0"), Ok(Rate::FlatOut));
        for bad in ["", "-1", "nan", "inf", "fast"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_has_room_for_its_mark() {
        assert_eq!(size("32"), Ok(32));
        assert!(size("31").is_err());
        assert!(size("1e3").is_err());
    }

    #[test]
    fn comparing_needs_a_process() {
        let parse = |more: &[&str]| {
            let base = ["fanfare-loadtest", "fanout", "--secret", "x", "--compare", "floor"];
            Arguments::try_parse_from(base.iter().chain(more))
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["--pid", "1"]).is_ok());
    }
}
