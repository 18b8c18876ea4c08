//! `regent failover`: the primary moves by force, or to a standby that lacks more than may be lost by itself. Asks first.

use super::exit::UsageError;
use super::verb::{Waiting, ask_status, perform};
use super::{Common, Exit, confirm};
use crate::api::admin::Request;
use crate::api::status::Status;
use crate::types::{NodeName, ServiceName};

#[derive(clap::Args)]
pub struct Arguments {
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Although no majority of voters would be left without the primary's host
    #[arg(long)]
    force: bool,
    /// The service has no primary, and nobody has enough of its WAL: whoever has most takes over all the same
    #[arg(long, conflicts_with = "force")]
    accept_loss: bool,
    /// With --accept-loss: who takes over [default: whoever has most]
    #[arg(long, value_name = "NODE", requires = "accept_loss")]
    to: Option<NodeName>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(common: &Common, arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { service, force, accept_loss, to, yes, waiting } = arguments;
    let service = which(&ask_status(common)?, service)?;
    let warning = if accept_loss { service.warning_of_loss(to.as_ref()) } else { service.warning() };
    if !confirm::by_typing(service.name.as_str(), &warning, yes)? {
        return Ok(Exit::Failed);
    }
    let service = Some(service.name);
    let request = match accept_loss {
        true => Request::AcceptLoss { service, to },
        false => Request::Failover { service, force },
    };
    perform(common, &waiting, &request)
}

/// The service that was meant, and what a person should know before its primary is shot.
struct Meant {
    name: ServiceName,
    primary: Option<NodeName>,
}

/// The named service, or the only one. The daemon is told by name in any case, so that what was confirmed is what is
/// done.
fn which(status: &Status, named: Option<ServiceName>) -> Result<Meant, UsageError> {
    let names: Vec<&str> = status.services.keys().map(|name| name.as_str()).collect();
    let name = match (named, &names[..]) {
        (Some(name), _) => name,
        (None, [_]) => status.services.keys().next().expect("there is one").clone(),
        (None, _) => return Err(UsageError(format!("which service? --service is one of: {}", names.join(", ")))),
    };
    let Some(service) = status.services.get(&name) else {
        return Err(UsageError(format!("there is no service {name}; the services are: {}", names.join(", "))));
    };
    Ok(Meant { primary: service.primary.clone(), name })
}

impl Meant {
    fn warning_of_loss(&self, to: Option<&NodeName>) -> String {
        let to = to.map_or("whoever has most of its WAL", |to| to.as_str());
        format!(
            "{} goes to {to}, although that lacks more of what the last primary wrote than failover.max_lag.\n\
             Those transactions are lost to the service. If the last primary can be brought back, wait for it: it has them.\n\
             `regent status` says what each database lacks.",
            self.name
        )
    }

    fn warning(&self) -> String {
        let first = match &self.primary {
            Some(primary) => {
                format!("{primary} is the primary of {} and will be fenced; the best candidate takes over.", self.name)
            }
            None => format!("{} has no primary; the best candidate takes over.", self.name),
        };
        format!(
            "{first}\nA forced failover may lose transactions that have not reached the new primary.\n\
             To move a healthy primary use `regent switchover`: it loses nothing."
        )
    }
}
