//! A request that panics: made to by a listener to its log, of which a build has none.

use oakallow_policy::audit::EventType;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::support::sidecar::Sidecar;
use crate::support::until;

/// Panics in whoever says this.
struct Trap(&'static str);

struct Heard<'a>(&'a str, bool);

impl Visit for Heard<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.1 |= field.name() == "message" && format!("{value:?}").contains(self.0);
    }
}

impl<S: Subscriber> Layer<S> for Trap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut heard = Heard(self.0, false);
        event.record(&mut heard);
        assert!(!heard.1, "the trap has sprung");
    }
}

#[tokio::test]
async fn a_request_that_panics_does_not_run_is_recorded_and_the_process_lives() {
    let trap = tracing_subscriber::registry().with(Trap("the backend refuses an approval"));
    tracing::subscriber::set_global_default(trap).unwrap();
    let sidecar = Sidecar::start().await;
    sidecar.backend.refuse_approvals();
    assert!(sidecar.call("ask").send().await.is_err(), "the connection ends without an answer");
    assert_eq!(sidecar.metric("oakallow_panics_total").await, 1.0);
    assert_eq!(sidecar.metric("oakallow_refusals_total{reason=\"internal_error\"}").await, 1.0);
    let told = until("call.refused", async || {
        sidecar.backend.audit().into_iter().find(|e| e.event.kind == EventType::CallRefused)
    });
    let told = told.await.event.data;
    assert_eq!((told.tool.as_deref(), told.reason.as_deref()), (Some("ask"), Some("internal_error")));
    let life: Vec<_> = sidecar.backend.lives()[0].iter().map(|kind| kind.as_str()).collect();
    assert_eq!(life, ["call.requested", "call.decided", "call.refused"]);
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    assert_eq!(sidecar.upstream.count(), 1);
    // Nothing is left behind that a restart would wait for, or close.
    let sidecar = sidecar.restart().await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
}
