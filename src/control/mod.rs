//! The control API: what the commands can do to a running Gatepost, and to one that does not run.
//!
//! [`api`] is the words of it, [`operations`] what each command does, [`routes`] carries them over HTTP on a Unix
//! socket, [`client`] is the other end of that. Without `serve` the command line performs the same operations itself.

mod missed;

pub mod api;
pub mod audit;
pub mod client;
pub mod operations;
pub mod routes;
pub mod socket;

pub use audit::{Actor, AuditLine};
pub use operations::{Host, Operations};
