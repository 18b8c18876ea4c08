//! The name of a refusal's variant, as stories show it beside its sentence.

use regent::ledger::Refusal;

/// The name of a refusal's variant.
pub fn variant(refusal: &Refusal) -> String {
    let debug = format!("{refusal:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
