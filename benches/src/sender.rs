//! Of `src/sender/` what is pure.

#[path = "../../src/sender/rules.rs"]
pub mod rules;
