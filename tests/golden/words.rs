//! Answers, plans and steps as sentences for people.

use regent::ledger::{Basis, Command, Event, FenceReason, Refusal};
use regent::plan::keeper;
use regent::plan::{Question, Step};
use regent::types::{DbAction, StopLadder};

/// The name of a refusal's variant.
pub fn variant(refusal: &Refusal) -> String {
    let debug = format!("{refusal:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

pub fn event(event: &Event) -> String {
    match event {
        Event::Seeded => "the ledger has its settings".to_owned(),
        Event::Joined { incarnation } => format!("accepted as incarnation {incarnation}"),
        Event::Declared { target, fence: Some(fence) } => format!("{target} is dead, and fence {fence} is open"),
        Event::Declared { target, fence: None } => format!("{target} is dead; nothing hangs on it, nobody fences it"),
        Event::FenceOpened { fence, incident } => format!("fence {fence} is open, incident {incident}"),
        Event::Ordered { orders, .. } => {
            let numbers: Vec<_> = orders.iter().map(u32::to_string).collect();
            format!("ordered as number {}", numbers.join(" and "))
        }
        Event::OrderEnded { fence, confirmed: true } => format!("noted, and fence {fence} is confirmed by it"),
        Event::OrderEnded { .. } => "noted; it confirms nothing".to_owned(),
        Event::Confirmed { fence } => format!("fence {fence} is confirmed"),
        Event::Refuted { fence } => format!("fence {fence} is refuted"),
        Event::Appointed { epoch } => format!("epoch {epoch} begins"),
        Event::SwitchoverStarted { incident } => format!("begun, incident {incident}"),
        Event::Noted => "noted".to_owned(),
    }
}

pub fn command(command: &Command) -> String {
    let of = match command {
        Command::Seed { .. } | Command::Pause { .. } | Command::Resume { .. } => String::new(),
        Command::Join { node, boot, claims, .. } => {
            let claims: Vec<_> = claims.values().map(|c| format!(", epoch {} {:?}", c.epoch, c.state)).collect();
            format!("{node}, boot {boot}{}", claims.join(""))
        }
        Command::DeclareDead { target, incarnation, round, answers, .. } => {
            let by: Vec<_> = answers.keys().map(ToString::to_string).collect();
            format!("{target}, incarnation {incarnation}, round {round}, seen by {}", by.join(" and "))
        }
        Command::OpenFence { target, reason: FenceReason::Operator { who }, .. } => {
            format!("{target}, wanted by {who}")
        }
        Command::OpenFence { target, reason: FenceReason::Lapsed { epoch, .. }, .. } => {
            format!("{target}, whose lease of epoch {epoch} lapsed")
        }
        Command::Order { fence, level, orders, .. } => {
            let what: Vec<_> =
                orders.iter().map(|o| format!("{} {} on {}", o.agent, o.action.word(), o.executor)).collect();
            let level = level.map_or("beside the levels".to_owned(), |l| format!("level {}", l + 1));
            format!("fence {fence}, {level}: {}", what.join(", "))
        }
        Command::OrderDone { fence, order, run } => {
            format!("fence {fence}, number {order}: {:?}: {}", run.outcome, run.output)
        }
        Command::NextLevel { fence, level, round, why, .. } => {
            format!("fence {fence} after level {} of round {}: {why}", level + 1, round + 1)
        }
        Command::HumanConfirm { incident, target, who, .. } => format!("{target}, incident {incident}, {who}"),
        Command::Refute { fence, by, channel, what, .. } => format!("fence {fence}, by {by} on {channel}: {what}"),
        Command::Assisting { fence, agent, node, .. } => format!("fence {fence}: {agent} is about to run on {node}"),
        Command::Assisted { fence, agent, node, action, .. } => {
            format!("fence {fence}: {agent} {} on {node}", action.word())
        }
        Command::Lift { fence, who, power_on } => {
            format!("fence {fence}{}, because {who}", if *power_on { " with power" } else { "" })
        }
        Command::CloseFence { fence } => format!("fence {fence}"),
        Command::Create { node, .. } => format!("on {node}"),
        Command::Appoint { prior, node, basis, why, .. } => {
            let basis = match basis {
                Basis::Released => "its release".to_owned(),
                Basis::Fenced { fence, .. } => format!("fence {fence}"),
            };
            format!("{node} after epoch {prior}, on {basis}: {why}")
        }
        Command::Promoting { epoch, node, timeline, .. } => format!("{node}, epoch {epoch}, to timeline {timeline}"),
        Command::Installed { epoch, node, position, .. } => format!("{node}, epoch {epoch}, at {position}"),
        Command::Release { epoch, node, position, why, .. } => {
            let at = position.map_or(String::new(), |p| format!(" at {p}"));
            format!("{node}, epoch {epoch}{at}: {why}")
        }
        Command::Switchover { to, .. } => to.as_ref().map_or(String::new(), |to| format!("to {to}")),
        Command::CancelSwitchover { why, .. } => why.clone(),
        Command::Renewed { epoch, resumed, .. } => format!("epoch {epoch} after resume {resumed}"),
        Command::Rejoined { node, how, .. } => format!("{node}: {how}"),
    };
    format!("{} {of}", command.name()).trim_end().to_owned()
}

pub fn question(question: &Question) -> String {
    match question {
        Question::Look { target, incarnation, round, .. } => {
            format!("look at {target}, incarnation {incarnation}, again (round {round})")
        }
        Question::Check { fence, .. } => format!("does fence {fence} hold, as far as you hear?"),
        Question::Seal { epoch, .. } => format!("close your WAL receiver: where does your WAL end, for epoch {epoch}?"),
    }
}

pub fn step(step: &Step) -> String {
    match step {
        Step::Propose(c) => format!("proposes {}", command(c)),
        Step::Ask { to, question: q } => format!("asks {to}: {}", question(q)),
        Step::Transfer { to, why } => format!("hands leadership to {to}: {why}"),
    }
}

fn ladder(ladder: &StopLadder) -> String {
    let rung = |name: &str, time: std::time::Duration| format!("{name} {} s", time.as_secs_f64());
    let rungs = [("fast", ladder.fast), ("immediate", ladder.immediate), ("kill", ladder.kill)];
    let rungs: Vec<_> = rungs.iter().filter(|(_, t)| !t.is_zero()).map(|(n, t)| rung(n, *t)).collect();
    rungs.join(", ")
}

pub fn action(action: &DbAction) -> String {
    match action {
        DbAction::StartPrimary { epoch } => format!("{} under epoch {epoch}", keeper::action_name(action)),
        DbAction::Promote { epoch, timeline } => format!("promote to timeline {timeline} under epoch {epoch}"),
        DbAction::StartStandby { upstream: Some(up) } | DbAction::Follow { upstream: up } => {
            format!("{} of {}", keeper::action_name(action), up.node)
        }
        DbAction::Rejoin { upstream } => format!("make it a standby of {}: nothing, rewind or clone", upstream.node),
        DbAction::Stop { ladder: l } => format!("stop in order ({})", ladder(l)),
        _ => keeper::action_name(action).to_owned(),
    }
}

pub fn keeper_step(step: &keeper::Step) -> String {
    match step {
        keeper::Step::Wait(why) => format!("waits: {why}"),
        keeper::Step::Db(a) => action(a),
        keeper::Step::StopNow(l, why) => format!("STOPS NOW ({}): {why}", ladder(l)),
        keeper::Step::StopToRejoin(l, why) => format!("stops, to rejoin ({}): {why}", ladder(l)),
        keeper::Step::Tombstone(epoch) => format!("writes the tombstone of epoch {epoch}"),
        keeper::Step::Release { epoch, position, why } => {
            let at = position.map_or(String::new(), |p| format!(" at {p}"));
            format!("says its final word on epoch {epoch}{at}: {why}")
        }
        keeper::Step::Promoting { epoch, timeline } => format!("says that epoch {epoch} begins timeline {timeline}"),
        keeper::Step::Installed { epoch } => format!("says that it accepts writes in epoch {epoch}"),
    }
}
