//! `fence_regent_firewall`: on this host, cuts all traffic to and from a fenced node, but for regent's own ports.
//!
//! What it stops: packets of any connection, established ones included, between this host and the node's addresses,
//! and packets that this host would forward for them. What it does not stop: the node's traffic with anybody else, its
//! clients above all. It assists; it does not isolate.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own that lives for one action: its caller keeps the deadline"
)]

#[path = "../contract/mod.rs"]
mod contract;
mod cut;
mod nft;

use contract::{Action, Answer, Opt, Request, Spec};
use cut::Cut;
use std::error::Error;
use std::process::ExitCode;

const SPEC: Spec = Spec {
    name: "fence_regent_firewall",
    shortdesc: "Network fencing on this host by nftables",
    longdesc: "fence_regent_firewall drops all traffic between this host and the addresses of a fenced node, in both \
               directions, established connections included, but for the ports of regent. It works in a table of its \
               own, inet regent_fence; each fence has chains of its own, and on removes exactly those. in-force lists \
               every fence that has chains here. It does not cut the node off from other hosts.",
    options: &[
        Opt::text("addresses", "Addresses of the fenced node, with commas between them"),
        Opt {
            default: Some("7420,7421"),
            ..Opt::text("regent_ports", "TCP and UDP ports that are never cut, with commas between them")
        },
        Opt {
            default: Some("0"),
            ..Opt::text("fence_id", "Number of the fence; on undoes what off did under the same one")
        },
        Opt { default: Some("nft"), ..Opt::text("nft_path", "The nft program") },
    ],
    actions: &[
        Action::On,
        Action::Off,
        Action::Status,
        Action::Monitor,
        Action::Metadata,
        Action::Manpage,
        Action::ValidateAll,
        Action::InForce,
    ],
    metadata: include_str!("metadata.xml"),
};

/// The kernel took the rules and does not show them.
#[derive(Debug, thiserror::Error)]
#[error("nft reported success, but the cut of fence {id} is not {wanted} afterwards")]
struct NotVerified {
    id: u64,
    wanted: &'static str,
}

fn main() -> ExitCode {
    contract::run(&SPEC, act)
}

async fn act(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let nft = nft::Nft::new(request.text("nft_path").unwrap_or("nft"));
    if request.action == Action::Monitor {
        // Without a target there is nothing to look for: is the kernel able and willing?
        let probe = Cut::probe();
        nft.check(&probe.install()).await?;
        return Ok(Answer::Done("Monitor: nftables takes the rules".to_owned()));
    }
    if request.action == Action::InForce {
        return Ok(Answer::Done(cut::in_force(&nft.ruleset().await?).lines().join("\n")));
    }
    let cut = Cut::from_request(request)?;
    match request.action {
        Action::Off => {
            cut.needs_addresses()?;
            nft.apply(&cut.install()).await?;
            if !cut.is_in_place(&nft.ruleset().await?) {
                return Err(NotVerified { id: cut.id, wanted: "in place" }.into());
            }
            Ok(Answer::Done(format!("Success: traffic with {} is cut here under fence {}", cut.addresses(), cut.id)))
        }
        Action::On => {
            remove(&nft, &cut).await?;
            Ok(Answer::Done(format!("Success: the cut of fence {} is gone", cut.id)))
        }
        Action::ValidateAll => {
            cut.needs_addresses()?;
            nft.check(&cut.install()).await?;
            Ok(Answer::Done("Success: the options are valid".to_owned()))
        }
        _ if cut.is_in_place(&nft.ruleset().await?) => Ok(Answer::Off("Status: OFF (the cut is in place)".to_owned())),
        _ => Ok(Answer::On("Status: ON (the cut is not in place)".to_owned())),
    }
}

/// How often what the kernel shows of a fence is removed, before it is said that it does not go.
const LOOKS: u32 = 3;

/// Removes what the kernel shows of the fence, and looks again: another run may remove the same meanwhile, and then the
/// transaction fails as a whole.
async fn remove(nft: &nft::Nft, cut: &Cut) -> Result<(), Box<dyn Error>> {
    let mut last = Ok(());
    for _ in 0..LOOKS {
        let Some(rules) = cut.remove(&nft.ruleset().await?) else { return Ok(()) };
        last = nft.apply(&rules).await;
    }
    if cut.remove(&nft.ruleset().await?).is_some() {
        last?;
        return Err(NotVerified { id: cut.id, wanted: "gone" }.into());
    }
    Ok(())
}

#[cfg(test)]
#[test]
fn the_metadata_is_what_the_options_say() {
    contract::check_golden_metadata(&SPEC, "fence-agents/firewall/metadata.xml");
}
