//! Gatepost.
use std::path::Path;
fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = gatepost::config::Config::load(
        Path::new(&std::env::args().nth(1).unwrap_or_default()),
        "localhost.localdomain",
    );
    let config = match config {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1)
        }
    };
    let r = tokio::runtime::Runtime::new().unwrap().block_on(gatepost::server::serve(config));
    if let Err(e) = r {
        eprintln!("{e}");
        std::process::exit(1)
    }
}
