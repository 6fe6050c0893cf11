//! `recover`: many are cut, miss what is published, come back and must be given all of it.

use std::time::Duration;

use serde::Serialize;

use crate::backend::Backend;
use crate::centrifuge::{Position, Subscribed};
use crate::channels::Channels;
use crate::cli::Recover;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::feed::Source;
use crate::meter::{Meter, Usage};
use crate::opening::Opening;
use crate::publisher::{Encoder, Publisher};
use crate::report;
use crate::schedule::Schedule;
use crate::target::{Target, Wire};

/// Runs the command and prints its report; fails unless everything is recovered.
pub(crate) async fn run(options: &Recover) -> Result<(), Failure> {
    let channels = Channels::new(options.channels, options.subscriptions_per_connection)?;
    let audience = channels.audience(options.connections)?;
    let wire = Wire::Centrifuge(channels);
    let target = Target::fanfare(&options.server.url, &options.server.secret, wire)?;
    let meter = Meter::new(options.server.pid)?;
    let cut = subscribe_and_cut(&target, channels, options.connections).await?;
    let missed = publish(&target, channels, options).await? * audience;

    let before = meter.read()?;
    let coming_back = cut.into_iter().map(move |(user, positions)| {
        let target = target.clone();
        async move {
            let were = channels.of(user).zip(positions.iter().map(Some));
            let (client, subscribed) = target.subscribe(user, were).await?;
            let verdicts: Vec<_> = positions.iter().zip(&subscribed).map(judge).collect();
            Ok((client, verdicts))
        }
    });
    let back = Opening::new(coming_back).all().await?;
    let usage = meter.read()?.since(&before);
    let verdicts = back.iter().flat_map(|(_, verdicts)| verdicts);
    let outcome = Outcome::new(options.connections, missed, verdicts, usage);
    report::print(options.server.json, &outcome, || outcome.rows())?;
    outcome.check()
}

/// Where every user was, in each of its channels, when its socket went without a close.
async fn subscribe_and_cut(
    target: &Target,
    channels: Channels,
    connections: u32,
) -> Result<Vec<(u32, Vec<Position>)>, Failure> {
    let target = target.clone();
    let subscribing = Opening::new((0..connections).map(move |user| {
        let target = target.clone();
        async move {
            let from_now = channels.of(user).map(|channel| (channel, None));
            Ok((user, target.subscribe(user, from_now).await?))
        }
    }));
    let subscribed = subscribing.all().await?;
    let all = subscribed.into_iter().map(|(user, (_, subscribed))| {
        let positions = subscribed.into_iter().map(|it| it.position()).collect::<Result<_, _>>();
        Ok((user, positions?))
    });
    all.collect()
}

/// Publishes what is missed; returns how many that is.
async fn publish(target: &Target, channels: Channels, options: &Recover) -> Result<u64, Failure> {
    let count = options.missed * channels.count();
    let backend = Backend::connect(target, &options.api_key).await?;
    let source = Source::Publish(options.size, options.api_key.clone(), channels);
    let encoder = Encoder::new(0, &source, target.address());
    let clock = Clock::start();
    let mut publisher = Publisher::new(backend.writer.clone(), encoder, clock)?;
    publisher.run(Schedule::once(count, clock.now())).await?;
    let sent = publisher.sent().count.get();
    backend.answers.wait(sent).await?;
    let refused = backend.answers.refused.borrow().len();
    if sent < u64::from(count) || refused > 0 {
        let text = format!("only {sent} of {count} publishes go out, {refused} refused; miss less");
        return Err(Failure::Run(text));
    }
    Ok(sent)
}

/// What a subscriber that came back was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Everything, so many.
    Recovered(u64),
    /// Nothing, and word of it.
    Unrecovered,
    /// Something else, which must not be.
    Partial,
}

fn judge((was, is): (&Position, &Subscribed)) -> Verdict {
    let offsets = is.publications.iter().map(|publication| publication.offset);
    if is.recovered && was.epoch == is.epoch && offsets.eq(was.offset + 1..=is.offset) {
        Verdict::Recovered(is.publications.len() as u64)
    } else if is.recovered || !is.publications.is_empty() {
        Verdict::Partial
    } else {
        Verdict::Unrecovered
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    connections: u32,
    /// Subscriptions, by what their subscribers were given.
    recovered: u64,
    unrecovered: u64,
    partial: u64,
    /// Publications that they were given, and those that they had missed.
    publications: u64,
    missed: u64,
    /// The server's CPU time for each subscription, if its process is known.
    us_per_recovery: Option<f64>,
    us_per_reconnect: Option<f64>,
    #[serde(flatten)]
    usage: Usage,
}

impl Outcome {
    fn new<'a>(
        connections: u32,
        missed: u64,
        verdicts: impl Iterator<Item = &'a Verdict>,
        usage: Usage,
    ) -> Self {
        let (mut recovered, mut unrecovered, mut partial, mut publications) = (0, 0, 0, 0);
        for verdict in verdicts {
            match verdict {
                Verdict::Recovered(count) => {
                    recovered += 1;
                    publications += count;
                }
                Verdict::Unrecovered => unrecovered += 1,
                Verdict::Partial => partial += 1,
            }
        }
        Self {
            connections,
            recovered,
            unrecovered,
            partial,
            publications,
            missed,
            us_per_recovery: usage.server_us_per(recovered + unrecovered + partial),
            us_per_reconnect: usage.server_us_per(connections.into()),
            usage,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let Self { unrecovered, partial, publications, missed, .. } = self;
        if unrecovered + partial > 0 || publications != missed {
            return Err(Failure::Run(format!(
                "{unrecovered} subscriptions are not recovered, {partial} only partly; \
                 {publications} of {missed} publications came"
            )));
        }
        Ok(())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { connections, recovered, unrecovered, partial, publications, missed, .. } = self;
        let took = Duration::from_secs_f64(self.usage.seconds);
        let mut rows = vec![
            ("reconnects", format!("{connections} in {took:.2?}")),
            (
                "subscriptions",
                format!("{recovered} recovered, {unrecovered} not, {partial} partly"),
            ),
            ("publications", format!("{publications} of {missed} missed")),
        ];
        let micros = |micros: f64| format!("{micros:.1} µs");
        rows.extend(self.us_per_reconnect.map(|cpu| ("CPU a reconnect", micros(cpu))));
        rows.extend(self.us_per_recovery.map(|cpu| ("CPU a subscription", micros(cpu))));
        rows.extend(self.usage.rows());
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::centrifuge;

    fn given(recovered: bool, offset: u64, offsets: &[u64]) -> Verdict {
        let publications: Vec<_> = offsets
            .iter()
            .map(|offset| {
                let body = "~ff~0001000000020000000000000003";
                format!(r#"{{"data":{{"body":"{body}"}},"offset":{offset}}}"#)
            })
            .collect();
        let reply = format!(
            r#"{{"id":2,"subscribe":{{"epoch":"e","offset":{offset},"recovered":{recovered},"publications":[{}]}}}}"#,
            publications.join(",")
        );
        let mut said = centrifuge::read(reply.as_bytes()).unwrap();
        let is = said.remove(0).subscribe.unwrap();
        judge((&Position { offset: 5, epoch: "e".to_owned() }, &is))
    }

    #[test]
    fn only_all_of_it_is_recovery() {
        assert_eq!(given(true, 7, &[6, 7]), Verdict::Recovered(2));
        assert_eq!(given(true, 5, &[]), Verdict::Recovered(0));
        assert_eq!(given(false, 7, &[]), Verdict::Unrecovered);
        for (recovered, offsets) in
            [(true, &[6][..]), (true, &[7]), (true, &[6, 7, 8]), (true, &[7, 6]), (false, &[7])]
        {
            assert_eq!(given(recovered, 7, offsets), Verdict::Partial, "{offsets:?}");
        }
    }
}
