//! The only reader of the clock (CLOCK_BOOTTIME).
