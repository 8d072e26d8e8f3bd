//! `gatepost demo`: the story on loopback.

pub mod practice;
