//! A backend that pushes over HTTP: one connection, kept alive, requests pipelined.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::responses::Responses;
use crate::target::Target;
use crate::writer::Writer;

/// An open connection to the API.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) writer: Rc<Writer>,
    pub(crate) answers: Rc<Answers>,
    reading: AbortHandle,
}

/// What the server said to publishes so far, in the order of the requests.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) count: Cell<u64>,
    /// Numbers, from 0, of the publishes that were answered with 503 or an error.
    pub(crate) refused: RefCell<Vec<u32>>,
    /// Why no more answers come.
    fault: RefCell<Option<String>>,
    changed: Notify,
}

impl Backend {
    /// Connects, and checks that the key opens the API.
    pub(crate) async fn connect(target: &Target, key: &str) -> Result<Self, Failure> {
        let address = target.address();
        let setup = |text: String| Failure::Setup(format!("the api at {address} {text}"));
        let probe = async {
            let (read, half) = target.dial(0).await?.into_split();
            let writer = Rc::new(Writer::new(half));
            let request = format!(
                "POST /api/info HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\n\
                 content-length: 2\r\n\r\n{{}}"
            );
            writer.write_all(request.as_bytes()).await?;
            let mut responses = Responses::new(read);
            let (status, _) = responses.next().await?;
            Ok::<_, io::Error>((writer, responses, status))
        };
        let answer = timeout(PATIENCE, probe).await.map_err(|_| setup("does not answer".into()))?;
        let (writer, responses, status) =
            answer.map_err(|error| setup(format!("cannot be used: {error}")))?;
        match status {
            200 => {}
            401 => {
                return Err(setup("refuses the key; --api-key takes the server's api.key".into()));
            }
            404 => return Err(setup("is off; set the server's api.key".into())),
            status => return Err(setup(format!("answers with status {status}"))),
        }
        let answers = Rc::new(Answers::default());
        let reading = spawn_local(count(responses, answers.clone())).abort_handle();
        Ok(Self { writer, answers, reading })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Answers {
    /// Notes the answer to one publish, or to those of a batch.
    fn note(&self, body: &[u8]) {
        #[derive(Deserialize)]
        struct Batch {
            replies: Vec<Reply>,
        }
        #[derive(Deserialize)]
        struct Reply {
            error: Option<IgnoredAny>,
        }
        if body.starts_with(br#"{"error""#) {
            return self.refuse();
        }
        if !body.starts_with(br#"{"replies""#) {
            return self.count.set(self.count.get() + 1);
        }
        // One that cannot be read counts none, so that the wait for it tells.
        let Ok(Batch { replies }) = serde_json::from_slice(body) else { return };
        for reply in replies {
            match reply.error {
                Some(_) => self.refuse(),
                None => self.count.set(self.count.get() + 1),
            }
        }
    }

    fn refuse(&self) {
        self.refused.borrow_mut().push(self.count.get() as u32);
        self.count.set(self.count.get() + 1);
    }

    /// Waits until so many publishes are answered.
    pub(crate) async fn wait(&self, count: u64) -> Result<(), Failure> {
        while self.count.get() < count {
            let changed = self.changed.notified();
            if let Some(fault) = &*self.fault.borrow() {
                return Err(Failure::Run(format!("the api failed: {fault}")));
            }
            if timeout(PATIENCE, changed).await.is_err() {
                let left = count - self.count.get();
                return Err(Failure::Run(format!("the api leaves {left} publishes unanswered")));
            }
        }
        Ok(())
    }
}

/// Counts the answers to publishes, until one is not understood.
async fn count(mut responses: Responses, answers: Rc<Answers>) {
    loop {
        let fault = match responses.next().await {
            Ok((200, body)) => {
                answers.note(&body);
                None
            }
            Ok((503, _)) => {
                answers.refuse();
                None
            }
            Ok((status, _)) => Some(format!("it answers a publish with status {status}")),
            Err(error) => Some(error.to_string()),
        };
        let ends = fault.is_some();
        *answers.fault.borrow_mut() = fault;
        answers.changed.notify_waiters();
        if ends {
            return;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
