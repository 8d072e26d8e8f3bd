//! Gatepost: an SMTP submission proxy that catches stolen accounts by their attempts to reach recipients that do not exist.
#![allow(clippy::todo, unused)] // while the house is being built

pub mod account;
pub mod auth;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod desk;
pub mod durable;
pub mod guard;
pub mod id;
pub mod maillog;
pub mod net;
pub mod notify;
pub mod parts;
pub mod quarantine;
pub mod release;
pub mod roster;
pub mod server;
pub mod session;
pub mod smtp;
pub mod submission;
pub mod transfer;
pub mod upstream;
