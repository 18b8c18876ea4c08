//! What the plan judges, as the values that the admin socket carries: reasons become sentences here and nowhere before.
//!
//! Not here: any judgement, and what it is judged by (`report.rs`, `operator.rs`).

use crate::api::admin::{Check, Response};
use crate::api::status::Readiness;
use crate::plan::readiness;
use crate::plan::switchover::{Hindrance, Switchover};

/// The standing answer.
pub(crate) fn readiness(judged: readiness::Readiness) -> Readiness {
    let readiness::Readiness { failover_ready, survives_one_more, reasons } = judged;
    Readiness { failover_ready, survives_one_more, reasons: reasons.iter().map(ToString::to_string).collect() }
}

/// A dry run: what would happen, or what keeps it from being begun.
pub(crate) fn dry_run(decided: &Result<Switchover, Vec<Hindrance>>) -> Response {
    let (steps, checks) = match decided {
        Ok(planned) => (planned.steps(), vec![Check { passed: true, what: planned.to_string() }]),
        Err(why) => (Vec::new(), why.iter().map(|why| Check { passed: false, what: why.to_string() }).collect()),
    };
    Response::Plan { steps: steps.iter().map(ToString::to_string).collect(), checks }
}
