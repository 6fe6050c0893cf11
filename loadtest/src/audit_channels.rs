//! `audit --channels`: subscribers that are cut or stall must get every admitted publish all the same,
//! once and in order.

use crate::audit::{self, publish};
use crate::author::{Author, Over};
use crate::backend::Backend;
use crate::channels::Channels;
use crate::cli::Audit;
use crate::clock::Clock;
use crate::crowd::{Crowd, Everybody};
use crate::failure::Failure;
use crate::fate::Fate;
use crate::feed::Source;
use crate::ledger;
use crate::nodes::Nodes;
use crate::publisher::{Encoder, Publisher};
use crate::report;
use crate::schedule::Schedule;
use crate::target::{Target, Wire};

/// Runs the command and prints its report; fails if anything is wrong.
pub(crate) async fn run(options: &Audit, channels: u32) -> Result<(), Failure> {
    let channels = Channels::new(channels, options.subscriptions_per_connection)?;
    let wire = Wire::Centrifuge(channels);
    let target = Target::fanfare(&options.server.url, &options.server.secret, wire)?;
    let clock = Clock::start();
    let crowd = Crowd {
        nodes: Nodes::new([target.clone()]),
        channels,
        counts: Default::default(),
        publishers: options.publishers,
        window: options.window,
        fate: Fate::new(options.life, options.stall),
    };
    let mut everybody = Everybody::subscribe(&crowd, options.connections).await?;
    let (mut publishers, mut authors) = (Vec::new(), Vec::new());
    for number in 0..options.publishers {
        let (publisher, author) = if number.is_multiple_of(2) {
            open_peer(&crowd, &target, options, number, clock, &mut everybody).await?
        } else {
            open_backend(&target, channels, options, number, clock).await?
        };
        publishers.push(publisher);
        authors.push(author);
    }
    let schedule = Schedule::new(options.rate, clock.now(), options.duration);
    let outcome = ledger::run(&crowd, everybody, authors, publish(publishers, schedule)).await?;
    report::print(options.server.json, &outcome, || outcome.rows())?;
    audit::check(&outcome.faults)
}

/// A publisher that is a subscriber of all channels, and is never cut.
async fn open_peer(
    crowd: &Crowd,
    target: &Target,
    options: &Audit,
    number: u16,
    clock: Clock,
    everybody: &mut Everybody,
) -> Result<(Publisher, Author), Failure> {
    let (peer, client) = crowd.open_peer(options.connections + u32::from(number)).await?;
    let source = Source::Client(options.size, crowd.channels);
    let encoder = Encoder::new(number, &source, target.address());
    let publisher = Publisher::new(client.writer(), encoder, clock)?;
    let (sent, over) = (publisher.sent(), Over::Peer(peer.answers.clone()));
    everybody.add_peer(peer, client);
    Ok((publisher, Author { name: format!("publishing peer {number}"), sent, over }))
}

async fn open_backend(
    target: &Target,
    channels: Channels,
    options: &Audit,
    number: u16,
    clock: Clock,
) -> Result<(Publisher, Author), Failure> {
    let backend = Backend::connect(target, &options.api_key).await?;
    let source = Source::Publish(options.size, options.api_key.clone(), channels);
    let encoder = Encoder::new(number, &source, target.address());
    let publisher = Publisher::new(backend.writer.clone(), encoder, clock)?;
    let (sent, over) = (publisher.sent(), Over::Http(backend));
    Ok((publisher, Author { name: format!("http publisher {number}"), sent, over }))
}
