//! The φ accrual failure detector's arithmetic, and its inverse. Numbers in, numbers out.
//!
//! N. Hayashibara, X. Défago, R. Yared, T. Katayama: "The φ Accrual Failure Detector", SRDS 2004. The longer a
//! heartbeat is overdue, the less likely it is that it still comes:
//!
//! ```text
//! φ(t) = −log₁₀ P_later(t)        P_later(t) = 1 − F(t),  F normal with the window's mean and deviation
//! ```
//!
//! where `t` is the time since the last heartbeat. φ = 8 means: were the arrivals as regular as the window says, one
//! suspicion in 10⁸ would be wrong. `acceptable_pause` is added to the mean, and the deviation has a floor, because
//! hosts pause for reasons that no window has seen.
//!
//! F is the logistic approximation of the normal distribution (Bowling et al. 2009, error below 0.00014 in F):
//! `F(y) = 1 / (1 + e^−L(y))`, `L(y) = 1.5976 y + 0.070566 y³`, `y = (t − mean) / deviation`. With it
//! `φ = log₁₀(1 + e^L)`, which neither underflows nor cancels however long the silence, grows strictly, and has an
//! exact inverse: the moment of suspicion can be told in advance, so nobody has to poll.

use std::f64::consts::LN_10;

const LINEAR: f64 = 1.5976;
const CUBIC: f64 = 0.070566;

/// φ after a silence that lies `y` deviations beyond what is expected (negative: it is not due yet).
pub(super) fn phi(y: f64) -> f64 {
    let log_odds = LINEAR * y + CUBIC * y * y * y;
    // ln(1 + e^L), written so that e^L never overflows.
    let ln = if log_odds > 0.0 { log_odds + (-log_odds).exp().ln_1p() } else { log_odds.exp().ln_1p() };
    ln / LN_10
}

/// How many deviations beyond the expected a silence must last until φ reaches `threshold` (positive).
pub(super) fn deviations(threshold: f64) -> f64 {
    assert!(threshold > 0.0, "a threshold of zero suspects everybody always");
    // φ = log₁₀(1 + e^L), so L = ln(10^φ − 1).
    let log_odds = threshold * LN_10 + (-(-threshold * LN_10).exp()).ln_1p();
    // The one real root of CUBIC·y³ + LINEAR·y = L, by the triple-angle formula of sinh.
    let scale = (LINEAR / (3.0 * CUBIC)).sqrt();
    2.0 * scale * ((3.0 * log_odds / (2.0 * LINEAR * scale)).asinh() / 3.0).sinh()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn phi_agrees_with_the_normal_distribution() {
        // −log₁₀ of the upper tail of the normal distribution, from tables.
        for (y, expected, tolerance) in
            [(0.0, 0.301, 0.001), (1.0, 0.7995, 0.002), (2.0, 1.643, 0.02), (3.0, 2.870, 0.05)]
        {
            assert!((phi(y) - expected).abs() < tolerance, "phi({y}) = {}", phi(y));
        }
    }

    #[test]
    fn phi_is_a_number_at_both_ends() {
        assert!(phi(-1e6) >= 0.0 && phi(-1e6) < 1e-9);
        assert!(phi(1e6).is_finite() && phi(1e6) > 1e15);
    }

    proptest! {
        #[test]
        fn the_inverse_is_the_inverse(threshold in 0.01f64..100.0) {
            prop_assert!((phi(deviations(threshold)) / threshold - 1.0).abs() < 1e-9);
        }

        #[test]
        fn phi_grows_with_silence(y in -20.0f64..200.0, more in 0.01f64..10.0) {
            prop_assert!(phi(y + more) > phi(y));
        }
    }
}
