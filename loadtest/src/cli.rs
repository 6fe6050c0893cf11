//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Serve the yardstick: fan-out with no features at all.
    Floor {
        /// Address and port to listen on; port 0 takes a free one, which is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        bind: SocketAddr,
    },
}

/// The server that is tested.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// Scheme, host and port of the server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The server's auth.hmac_secret, to sign tokens with.
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
    /// Who publishes.
    #[arg(long, default_value = "chat")]
    pub(crate) publish: Publish,
    /// The server's api.key, to publish over HTTP.
    #[arg(long, env = "FANFARE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Measure the floor server in turn, on the same CPUs, with frames of the same length.
    #[arg(long, requires = "pid")]
    pub(crate) compare_floor: bool,
    /// How often each of the two is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Publish {
    /// A chat connection.
    Chat,
    /// A backend, over one pipelined HTTP connection.
    Http,
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = match text {
        "max" | "0" => return Ok(Rate::FlatOut),
        text => text.parse::<f64>().ok(),
    };
    let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.map(Rate::PerSecond).ok_or_else(|| "use a number above 0, or max".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (Mark::BYTES..=SIZE_MAX).contains(size));
    size.ok_or_else(|| format!("use {} to {SIZE_MAX} bytes", Mark::BYTES))
}

/// Bytes of the largest body.
const SIZE_MAX: usize = 1 << 24;

const EXAMPLES: &str = "Examples:
  fanfare-loadtest fanout --connections 1000 --rate 6000 --pid $(pidof fanfare)
  fanfare-loadtest fanout --rate 20 --compare-floor --rounds 5 --pid $(pidof fanfare) --json

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
            let base = ["fanfare-loadtest", "fanout", "--secret", "x", "--compare-floor"];
            Arguments::try_parse_from(base.iter().chain(more))
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["--pid", "1"]).is_ok());
    }
}
