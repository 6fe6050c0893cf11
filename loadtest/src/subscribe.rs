//! `subscribe`: what subscriptions cost, in CPU and in memory.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::centrifuge;
use crate::channels::Channels;
use crate::cli::Subscribe;
use crate::client::Client;
use crate::failure::Failure;
use crate::meter::{Meter, Usage};
use crate::opening::Opening;
use crate::report;
use crate::target::{Target, Wire};

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Subscribe) -> Result<(), Failure> {
    let channels = Channels::new(options.channels, options.subscriptions_per_connection)?;
    let wire = Wire::Centrifuge(channels);
    let target = Target::fanfare(&options.server.url, &options.server.secret, wire)?;
    let meter = Meter::new(options.server.pid)?;
    let connecting = target.clone();
    let connected = Opening::new((0..options.connections).map(move |user| {
        let target = connecting.clone();
        async move { Ok((user, target.subscribe(user, std::iter::empty()).await?.0)) }
    }));
    let connected = connected.all().await?;
    sleep(options.settle).await;

    let (memory, before) = (meter.resident()?, meter.read()?);
    let subscribing = connected.into_iter().map(move |(user, client)| {
        let channels = channels.of(user);
        subscribe(client, channels)
    });
    let subscribed = Opening::new(subscribing).all().await?;
    let usage = meter.read()?.since(&before);
    sleep(options.settle).await;
    let grown = meter.resident()?.saturating_sub(memory);
    drop(subscribed);

    let subscriptions = u64::from(options.connections) * u64::from(channels.each());
    let outcome = Outcome {
        connections: options.connections,
        channels: channels.count(),
        subscriptions,
        us_per_subscribe: usage.server_us_per(subscriptions),
        bytes_per_subscription: usage.server_cpu.map(|_| grown as f64 / subscriptions as f64),
        usage,
    };
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// Subscribes to all of its channels by one frame.
async fn subscribe(
    mut client: Client,
    channels: impl Iterator<Item = u32>,
) -> Result<Client, Failure> {
    let mut frame = String::new();
    let count = centrifuge::subscribe(&mut frame, channels.map(|channel| (channel, None)));
    client.ask(&frame, count).await?;
    Ok(client)
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    connections: u32,
    channels: u32,
    subscriptions: u64,
    /// The server's CPU time; this and memory only if its process is known.
    us_per_subscribe: Option<f64>,
    /// What became resident in the server.
    bytes_per_subscription: Option<f64>,
    #[serde(flatten)]
    usage: Usage,
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { connections, channels, subscriptions, usage, .. } = self;
        let took = Duration::from_secs_f64(usage.seconds);
        let mut rows = vec![
            ("connections", connections.to_string()),
            ("channels", channels.to_string()),
            ("subscriptions", format!("{subscriptions} in {took:.2?}")),
        ];
        let cpu = self.us_per_subscribe.map(|cpu| format!("{cpu:.3} µs"));
        rows.extend(cpu.map(|cpu| ("CPU a subscribe", cpu)));
        let memory = self.bytes_per_subscription.map(|bytes| format!("{bytes:.0} B resident"));
        rows.extend(memory.map(|memory| ("memory a subscription", memory)));
        rows.extend(usage.rows());
        rows
    }
}
