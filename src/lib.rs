//! Gatepost: an SMTP submission proxy that catches stolen accounts by their attempts to reach recipients that do not exist.
//!
//! # The mail path in six steps
//! 1. A client connects ([`server`]), starts TLS and authenticates ([`auth`]); from then on an [`account::Account`] is responsible.
//! 2. Its commands go through the pure [`session`] machine; [`submission`] does what the machine's steps ask.
//! 3. Each RCPT is asked of the MTA within the very transaction that will relay the message ([`upstream`]).
//! 4. What the MTA answers is classified; "no such recipient" counts against the account ([`guard`]). At the limit the account is blocked.
//! 5. A message of an account in good standing is streamed upstream ([`transfer`]); a blocked account's goes into the [`quarantine`],
//!    and its client sees no difference. The abuse desk gets a mail ([`desk`], [`notify`]).
//! 6. An operator looks ([`control`]) and decides: [`release`] sees a released message through.
//!
//! # The house
//! Someone who reads two files has seen every way that mail can move: in ([`submission`]) and out of the quarantine ([`release`]).
//!
//! | layer | modules | may use |
//! | --- | --- | --- |
//! | 0 words | [`smtp`], [`account`], [`clock`], [`decimal`], [`id`], [`fail`] | std |
//! | 1 decisions, pure | [`session`], [`guard`]'s classify, window, detector, cause, mimicry, [`quarantine`]'s envelope, [`sender`]'s rules, [`config`]; [`replay`], apart | layer 0 |
//! | 2 parts | [`auth`], [`upstream`], [`quarantine`], [`guard`]'s ledger, [`net`], [`notify`], [`durable`], [`rested`], [`roster`], [`sender`] | layers 0-1, not each other |
//! | 3 paths | [`submission`], [`release`], [`transfer`], [`control`], [`desk`], [`digest`], [`maillog`], [`parts`] | layers 0-2 |
//! | 4 program | [`server`], `cli`, `demo`, `main` | all |
//!
//! `tests/tidy.rs` holds the house to this. `docs/architecture.md` has the invariants and what is deliberately absent.

pub mod account;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decimal;
pub mod demo;
pub mod desk;
pub mod digest;
pub mod durable;
pub mod fail;
pub mod guard;
pub mod id;
pub mod maillog;
pub mod net;
pub mod notify;
pub mod parts;
pub mod quarantine;
pub mod release;
pub mod replay;
pub mod rested;
pub mod roster;
pub mod sender;
pub mod server;
pub mod session;
pub mod smtp;
pub mod submission;
pub mod transfer;
pub mod upstream;
