//! `audit`: every admitted publish at every connection, once and in order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde::Serialize;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::cli::Audit;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::feed::Source;
use crate::mark::{Mark, Place};
use crate::publisher::{Encoder, Publisher, Sent};
use crate::reader::Scratch;
use crate::report;
use crate::scanner::Frame;
use crate::schedule::Schedule;
use crate::subscribers::Subscribers;
use crate::tally::{TOO_MANY, error_code};
use crate::target::{Target, Wire};
use crate::trail::{Published, Refused, Trail};

/// Runs the command and prints its report; fails if anything is wrong.
pub(crate) async fn run(options: &Audit) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret, Wire::Chat)?;
    let clock = Clock::start();
    let mut ledger = Ledger {
        subscribers: Subscribers::new(&Scratch::new(clock), 1),
        trails: Vec::new(),
        publishers: options.publishers,
    };
    let mut opening = target.connect_all(1..options.connections + 1);
    while let Some(link) = opening.next().await {
        let observe = ledger.observer(Rc::default());
        ledger.subscribers.add(link?, observe);
    }
    let (mut publishers, mut accounts) = (Vec::new(), Vec::new());
    for number in 0..options.publishers {
        let (publisher, account) = ledger.open_publisher(&target, options, number, clock).await?;
        publishers.push(publisher);
        accounts.push(account);
    }
    ledger.subscribers.call_roll().await?;
    publish(publishers, Schedule::new(options.rate, clock.now(), options.duration)).await?;
    let outcome = ledger.close(&accounts).await?;
    report::print(options.server.json, &outcome, || outcome.rows())?;
    check(&outcome.faults)
}

/// Fails if there are faults.
pub(crate) fn check(faults: &[String]) -> Result<(), Failure> {
    match faults.first() {
        None => Ok(()),
        Some(fault) => Err(Failure::Run(format!("{} faults, the first: {fault}", faults.len()))),
    }
}

/// What a table shows of faults.
pub(crate) fn fault_rows(faults: &[String]) -> impl Iterator<Item = (&'static str, String)> {
    let shown = faults.iter().take(SHOWN).map(|fault| ("fault", fault.clone()));
    [("faults", faults.len().to_string())].into_iter().chain(shown)
}

/// Has all publish at once.
pub(crate) async fn publish(publishers: Vec<Publisher>, schedule: Schedule) -> Result<(), Failure> {
    let publishing = publishers.into_iter().map(|mut publisher| {
        let schedule = schedule.clone();
        async move { Ok(publisher.run(schedule).await?) }
    });
    all_at_once(publishing).await
}

/// Has all run at once to their ends; the first that fails is a failure.
pub(crate) async fn all_at_once<F>(futures: impl Iterator<Item = F>) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + 'static,
{
    let mut running = JoinSet::new();
    for future in futures {
        running.spawn_local(future);
    }
    while let Some(ran) = running.join_next().await {
        ran.map_err(|error| Failure::Run(error.to_string()))??;
    }
    Ok(())
}

/// All connections, and what each got.
struct Ledger {
    subscribers: Subscribers,
    trails: Vec<Rc<RefCell<Trail>>>,
    publishers: u16,
}

/// What a publisher did, and what the server said to it.
struct Account {
    name: String,
    sent: Rc<Sent>,
    refusals: Refusals,
}

enum Refusals {
    /// Errors that came to a chat connection.
    Chat(Rc<Cell<u32>>),
    Http(Backend),
}

impl Ledger {
    /// Connects a publisher, over chat and over HTTP in turn.
    async fn open_publisher(
        &mut self,
        target: &Target,
        options: &Audit,
        number: u16,
        clock: Clock,
    ) -> Result<(Publisher, Account), Failure> {
        let (writer, name, source, refusals) = if number.is_multiple_of(2) {
            let refused = Rc::new(Cell::new(0));
            let observe = self.observer(refused.clone());
            let link = target.connect(options.connections + 1 + u32::from(number)).await?;
            let writer = self.subscribers.add(link, observe);
            (writer, "chat", Source::Chat(options.size), Refusals::Chat(refused))
        } else {
            let backend = Backend::connect(target, &options.api_key).await?;
            let source = Source::Broadcast(options.size, options.api_key.clone());
            (backend.writer.clone(), "http", source, Refusals::Http(backend))
        };
        let encoder = Encoder::new(number, &source, target.address());
        let publisher = Publisher::new(writer, encoder, clock)?;
        let name = format!("{name} publisher {number}");
        let account = Account { name, sent: publisher.sent(), refusals };
        Ok((publisher, account))
    }

    /// What follows one connection's deliveries, and counts its refused publishes.
    fn observer(&mut self, refused: Rc<Cell<u32>>) -> impl FnMut(&Frame<'_>) + use<> {
        let trail = Rc::new(RefCell::new(Trail::new(self.publishers.into())));
        self.trails.push(trail.clone());
        let place = Place::default();
        move |frame| {
            let mark = place.find(frame.head).and_then(|at| Mark::read(frame.head, at));
            if let Some(mark) = mark {
                trail.borrow_mut().follow(mark);
            } else if error_code(frame.head) == Some(TOO_MANY) {
                refused.set(refused.get() + 1);
            }
        }
    }

    /// Waits for what is under way, and compares.
    async fn close(&self, accounts: &[Account]) -> Result<Outcome, Failure> {
        // What a connection answers after all its publishes says that none of them waits.
        self.subscribers.call_roll().await?;
        let mut published = Vec::new();
        for account in accounts {
            published.push(account.close().await?);
        }
        let admitted: u64 = published.iter().map(Published::admitted).sum();
        self.subscribers.drain(admitted * self.trails.len() as u64).await;
        let mut faults = Vec::new();
        for (number, trail) in self.trails.iter().enumerate() {
            let trail = trail.borrow();
            let found = trail.faults(&published, 0).into_iter();
            faults.extend(found.map(|fault| format!("connection {number}, {fault}")));
            if *trail != *self.trails[0].borrow() {
                faults.push(format!("connection {number} got another order than connection 0"));
            }
        }
        let ends = self.subscribers.tally.ends().into_iter();
        faults.extend(ends.map(|(end, count)| format!("{count} connections ended: {end}")));
        Ok(Outcome {
            connections: self.trails.len(),
            published: accounts.iter().map(|account| account.sent.count.get()).sum(),
            admitted,
            received: self.subscribers.tally.deliveries.get(),
            faults,
        })
    }
}

impl Account {
    async fn close(&self) -> Result<Published, Failure> {
        let sent = self.sent.count.get();
        let refused = match &self.refusals {
            Refusals::Chat(refused) => Refused::Some(refused.get()),
            Refusals::Http(backend) => {
                backend.answers.wait(sent).await?;
                let refused = backend.answers.refused.borrow();
                Refused::Exactly(refused.iter().copied().collect())
            }
        };
        Ok(Published { name: self.name.clone(), sent: sent as u32, refused })
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    connections: usize,
    published: u64,
    admitted: u64,
    received: u64,
    faults: Vec<String>,
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { connections, published, admitted, received, faults } = self;
        let expected = admitted * *connections as u64;
        let mut rows = vec![
            ("connections", connections.to_string()),
            ("publishes", format!("{published}, {} refused", published - admitted)),
            ("deliveries", format!("{received} of {expected}")),
        ];
        rows.extend(fault_rows(faults));
        rows
    }
}

/// Faults that a table shows.
const SHOWN: usize = 20;
