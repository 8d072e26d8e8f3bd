//! The binary: just runs the library's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatepost::cli::main()
}
