//! This node's life with the broker: connected, served, and after every loss connected anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::engine::{Connected, Connector, Failure, Session};
use super::entered::Entered;
use super::feed::{Feed, Heard};
use super::queue::{Request, Requests};
use super::register;
use super::{Broker, BrokerStats, check, delivery, follow, lease, parcel, pulse, reap};
use crate::channel::history::Position;
use crate::error::PublishError;
use crate::hub::Inner;
use crate::hub::publish::Published;

/// Serves a hub for ever.
pub(super) async fn run(
    hub: &Arc<Inner>,
    connector: &Connector,
    mut requests: Requests,
    connected: Connected,
) {
    let Some(broker) = &hub.broker else { return };
    let (mut connected, mut entered) = (Some(connected), Entered::default());
    let mut pause = PAUSE_MIN;
    loop {
        let Connected { session, feed } = match connected.take() {
            Some(connected) => connected,
            None => tokio::select! {
                connected = reconnect(broker, connector, &mut pause) => connected,
                () = requests.expire(hub) => return,
            },
        };
        let session = Arc::new(session);
        broker.session.store(Some(session.clone()));
        let failure = serve(hub, broker, &session, feed, (&mut requests, &mut entered)).await;
        broker.session.store(None);
        if broker.health.is_proven() {
            pause = PAUSE_MIN;
        }
        lose(hub, broker, &failure);
    }
}

/// Serves until something fails.
async fn serve(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    mut feed: Feed,
    (requests, entered): (&mut Requests, &mut Entered),
) -> Failure {
    let level = feed.level();
    // Each is polled only when it is woken, so that a publish costs nothing in those that are at rest.
    let mut parts: FuturesUnordered<LocalBoxFuture<'_, Result<Infallible, Failure>>> = [
        publish(hub, broker, session, requests).boxed_local(),
        receive(hub, broker, &mut feed).boxed_local(),
        follow::run(hub, broker, session).boxed_local(),
        register::run(hub, broker, session, entered).boxed_local(),
        reap::run(hub, broker, session).boxed_local(),
        check::run(hub, session).boxed_local(),
        pulse::run(broker, session, &level).boxed_local(),
        lease::run(hub, broker, session).boxed_local(),
    ]
    .into_iter()
    .collect();
    let Err(failure) = parts.select_next_some().await;
    failure
}

/// Sends publishes in the order in which they were made, as many at once as wait.
async fn publish(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    requests: &mut Requests,
) -> Result<Infallible, Failure> {
    // Until then what comes back might find nobody here to give it to.
    tokio::select! {
        () = broker.health.followed() => {}
        () = requests.expire(hub) => std::future::pending().await,
    }
    loop {
        let publishes = requests.next(hub, BATCH).await.iter().flat_map(Request::publishes);
        let parcels = parcel::pack(publishes);
        // Looked at before, as what comes back may already close some.
        let reached: Vec<_> = parcels.iter().map(|parcel| parcel.reach(hub)).collect();
        let answers = session.publish(&parcels).await?;
        let answers = reached.into_iter().zip(answers).map(|(connections, answer)| {
            let Position { offset, epoch } = answer.map_err(|refusal| {
                tracing::debug!(%refusal, "the broker refuses a publish");
                PublishError::Unavailable
            })?;
            Ok(Published { connections, offset, epoch })
        });
        let answers = parcel::unpack(&parcels, answers.collect());
        let mut answers = answers.into_iter().inspect(|answer| {
            if answer.is_ok() {
                BrokerStats::count(&broker.stats.published);
            }
        });
        requests.sent().for_each(|request| request.answer(hub, &mut answers));
    }
}

/// Brings what comes to those that it is for.
async fn receive(
    hub: &Arc<Inner>,
    broker: &Broker,
    feed: &mut Feed,
) -> Result<Infallible, Failure> {
    loop {
        let Heard { topic, payload } = feed.next().await?;
        delivery::deliver(hub, broker, &topic, &payload).await;
        feed.done(&payload);
    }
}

/// What comes with the end of a connection: nothing is known of what was published since.
fn lose(hub: &Inner, broker: &Broker, failure: &Failure) {
    BrokerStats::count(&broker.stats.lost);
    broker.health.lose(failure.to_string());
    broker.presence.lose();
    for names in hub.channels.names() {
        for name in names {
            hub.channels.with(&name, |_, state| {
                if let Some(mirror) = &mut state.mirror {
                    mirror.fall_behind();
                }
            });
        }
    }
}

/// Tries until it is connected, less and less often, and not in step with other nodes. A broker that takes
/// connections and is of no use is tried no more often than one that is not there.
async fn reconnect(broker: &Broker, connector: &Connector, pause: &mut Duration) -> Connected {
    loop {
        let jitter = fraction();
        tokio::time::sleep(pause.mul_f64(0.5 + jitter)).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
        match connector.connect().await {
            Ok(connected) => return connected,
            Err(error) => broker.health.lose(error.to_string()),
        }
    }
}

/// A number from 0 to 1, by chance.
fn fraction() -> f64 {
    let mut bytes = [0; 2];
    // Without chance nodes merely come back together.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

/// Publishes from which on no more are sent at once: enough that a round trip costs each of them little.
const BATCH: usize = 256;

/// Pauses between tries to connect: short for a server that restarts, bounded so that one that comes back
/// need not wait.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
