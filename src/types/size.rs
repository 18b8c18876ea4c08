//! A number of bytes as people read it. Not here: reading one from a configuration file (`config/read.rs`).

use std::fmt;

/// Shown as `16 B`, `3.4 KiB`, `1.0 GiB`, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let n = self.0;
        if n < 1024 {
            return write!(f, "{n} B");
        }
        let (mut tenths, mut unit) = (n / 1024 * 10 + n % 1024 * 10 / 1024, 0);
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_one_decimal_and_the_largest_unit_that_fits() {
        let sizes = [0, 1023, 1024, 3500, 16 << 20, 1 << 40].map(|n| Size(n).to_string());
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "3.4 KiB", "16.0 MiB", "1.0 TiB"]);
    }
}
