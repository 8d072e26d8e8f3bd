//! What the other tests take for granted of the real MTAs, asked of them without Gatepost in between.

use crate::support::mta::{Foreign, Kind, Mta};

#[test]
#[ignore]
fn peek() {
    for kind in [Kind::Postfix, Kind::Exim] {
        let behind = Mta::start(Kind::Postfix, "foreign.example", Foreign::Unrouted);
        let mta =
            Mta::start(kind, "mta.example", Foreign::Verified { by: behind.address, reject_code: None });
        println!("{kind:?} {} {}", mta.address, mta.folder().display());
        let out = std::process::Command::new("python3")
            .args(["/tmp/peek.py", &mta.address.port().to_string()])
            .output()
            .unwrap();
        println!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        println!("{}", mta.log());
    }
}
