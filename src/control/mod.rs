//! The control API: what the commands can do, whether or not a Gatepost is running.
//!
//! [`api`] defines its requests and answers, [`operations`] what each command does; [`routes`] carries them over HTTP
//! on a Unix socket, and [`client`] is the other end. Without `serve`, the command line performs the same operations
//! itself.

mod missed;

pub mod api;
pub mod audit;
pub mod client;
pub mod operations;
pub mod routes;
pub mod socket;

pub use audit::{Actor, AuditLine};
pub use operations::{Host, Operations};
