//! Requests in which no call was identified, and which go no further: counted, and recorded when it is
//! known who sent them.
//!
//! Of a sender without a valid key there is a count only: otherwise anybody who reaches the port could
//! fill the audit spool, and a full spool stops every call.

use oakallow_policy::audit::EventType;

use crate::app::App;
use crate::event::{self, Subject};
use crate::observe::Trail;
use crate::refusal::Refusal;

/// Records why a request is refused; to be called before that is answered. What cannot be recorded is
/// the refusal to answer with instead.
pub async fn refused(app: &App, subject: Option<&Subject>, code: &'static str) -> Result<(), Refusal> {
    Trail::current().note(|noted| noted.error = Some(code));
    app.metrics.refusals.with_label_values(&[code]).inc();
    let Some(subject) = subject else { return Ok(()) };
    let event = subject.event(EventType::CallRefused, event::reason(code, None));
    match app.spool.append(vec![event]).await {
        Ok(_) => Ok(()),
        Err(e) => Err(Refusal::AuditUnavailable(e.to_string())),
    }
}
