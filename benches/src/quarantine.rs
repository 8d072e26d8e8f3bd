//! Of `src/quarantine/` what is pure.

#[path = "../../src/quarantine/envelope.rs"]
pub mod envelope;
#[path = "../../src/quarantine/schedule.rs"]
pub mod schedule;
