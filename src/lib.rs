//! Gatepost: an SMTP submission proxy that catches stolen accounts by their attempts to reach recipients that do not exist.
//!
//! # The mail path in six steps
//! 1. A client connects ([`server`]), starts TLS and authenticates ([`auth`]); from then on an [`account::Account`] is responsible.
//! 2. Its commands go through the pure [`session`] machine; [`submission`] does what the machine's steps ask.
//! 3. Each recipient is probed at the MTA, in the very mail transaction that will relay the message ([`upstream`]).
//! 4. The MTA's reply is classified; "no such recipient" counts against the account ([`guard`]). At the limit the
//!    account is blocked.
//! 5. A message of an account in good standing is streamed upstream ([`transfer`]); that of a blocked account goes into
//!    the [`quarantine`], and its client sees no difference. The abuse desk gets a mail ([`desk`], [`notify`]).
//! 6. An operator investigates ([`control`]) and decides; [`release`] sees a released message through.
//!
//! # The house
//! Two files show every way in which mail can move: in ([`submission`]) and out of the quarantine ([`release`]).
//!
//! | layer | modules | may use |
//! | --- | --- | --- |
//! | 0 words | [`smtp`], [`account`], [`clock`], [`decimal`], [`encoded_word`], [`id`], [`fail`], [`history`], [`rare`], [`units`], [`visible`] | std; [`smtp`] [`account`], [`clock`], [`decimal`], [`id`] and [`visible`], [`id`] and [`history`] the clock, [`clock`] the fail points |
//! | 1 decisions, pure | [`guard`]'s classify, window, detector, cause, mimicry; [`quarantine`]'s envelope, schedule; [`sender`]'s rules | layer 0; cause and detector the window, the envelope the schedule |
//! | | [`session`] | layer 0, mimicry, [`sender`]'s rules |
//! | | [`replay`], apart | layer 0, [`guard`]'s classify, window, detector, cause, [`quarantine`]'s schedule |
//! | 1 settings, no sockets | [`config`] | layer 0; the settings that [`auth`], [`guard`] with its ledger, [`notify`], [`quarantine`], [`sender`], [`upstream`] define |
//! | 2 parts | [`durable`], [`rested`], [`roster`] | layer 0 |
//! | | [`net`] | layer 0, [`durable`] |
//! | | [`auth`], [`upstream`], [`notify`] | layer 0, [`durable`], [`net`]; [`auth`] [`rested`] too, [`notify`] [`quarantine`]'s schedule |
//! | | [`guard`]'s ledger, [`quarantine`], [`sender`] | layer 0, their own decisions; the first two [`durable`], the last [`rested`] |
//! | 3 paths | [`submission`], [`release`], [`transfer`], [`control`], [`desk`], [`digest`], [`maillog`], [`parts`] | layers 0-2 but [`replay`], each other |
//! | 4 program | [`server`], `cli`, `demo`, `main` | all |
//!
//! `tests/tidy.rs` enforces this, unit by unit. `docs/architecture.md` has the invariants and what is deliberately
//! absent.

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
pub mod encoded_word;
pub mod fail;
pub mod guard;
pub mod history;
pub mod id;
pub mod maillog;
pub mod net;
pub mod notify;
pub mod parts;
pub mod quarantine;
pub mod rare;
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
pub mod units;
pub mod upstream;
pub mod visible;
