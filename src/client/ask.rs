//! What the application is asked before a command is carried out.
//!
//! A command that needs an answer is given back as [`Lack::Answer`](super::Lack::Answer), and carried
//! out from its beginning once that is there.

use super::{Call, Lack, Refusal};
use crate::hook::{self, Act, Consent, Question};
use crate::protocol::centrifuge::{self, Denial, Error};
use crate::subscription::Who;
use crate::user::UserId;

impl Call<'_> {
    /// What the application says to what a peer wants; `None` if it has no say.
    pub(super) fn consent(
        &self,
        user: Option<&UserId>,
        act: Act<'_>,
    ) -> Result<Option<Consent>, Refusal> {
        if let Some(answer) = &self.given.answer {
            return Ok(answer.clone()?);
        }
        let Some(application) = &self.shard.hub.application else { return Ok(None) };
        let question = Question { client: self.client, user, act };
        match application.ask(&question) {
            Some(decision) => Err(Lack::Answer(decision).into()),
            None => Ok(None),
        }
    }

    pub(super) fn rpc(&self, who: &Who, rpc: &centrifuge::Rpc<'_>) -> Result<String, Refusal> {
        let act = Act::Rpc { method: &rpc.method, data: rpc.data };
        match self.consent(who.user.as_ref(), act)? {
            Some(Consent { data: Some(data), .. }) => Ok(format!(r#"{{"data":{}}}"#, data.get())),
            Some(_) => Ok("{}".to_owned()),
            // It was asked, and failed to answer.
            None if self.given.answer.is_some() => Err(Error::INTERNAL.into()),
            None => Err(Error::NOT_AVAILABLE.into()),
        }
    }

    /// Passes a message on to the application; an error is told to nobody, as nobody asked.
    pub(super) fn message(
        &self,
        who: &Who,
        message: &centrifuge::Send<'_>,
    ) -> Result<String, Refusal> {
        let Some(data) = message.data else { return Ok(String::new()) };
        match self.consent(who.user.as_ref(), Act::Message { data }) {
            Ok(_) | Err(Refusal::Denied(_) | Refusal::Error(_)) => Ok(String::new()),
            Err(refusal) => Err(refusal),
        }
    }
}

impl From<hook::Refusal> for Refusal {
    fn from(refusal: hook::Refusal) -> Self {
        match refusal {
            hook::Refusal::Close(reason) => Self::Close(reason),
            hook::Refusal::Error { code, message, temporary } => {
                Self::Denied(Denial { code, message, temporary })
            }
            hook::Refusal::Failed(_) => Self::Error(Error::INTERNAL),
        }
    }
}
