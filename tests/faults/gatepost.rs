//! The binary with its fail points, for `tests/faults` alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatepost::cli::main()
}
