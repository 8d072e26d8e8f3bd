//! `counts`: the names of all pieces of work. `counts NAME TIMES`: does one so many times; `benches/count` counts the instructions.

use std::process::ExitCode;

use gatepost_benches::work;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = work::all();
    match arguments.as_slice() {
        [] => all.iter().for_each(|work| println!("{}", work.name)),
        [name, times] => {
            let found = all.into_iter().find(|work| work.name == name);
            let (Some(mut work), Ok(times)) = (found, times.parse::<u32>()) else { return ExitCode::from(2) };
            (0..times).for_each(|_| (work.run)());
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
