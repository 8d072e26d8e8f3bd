//! Whatever breaks, nothing is lost: the real binary under load, a fault, and an audit; again and again, drawn from a seed.
//!
//! `cargo test --test faults` goes on for half a minute, `GATEPOST_FAULTS=5m` for five, `GATEPOST_FAULTS=500` for 500 rounds;
//! `GATEPOST_SEED=N` draws the same rounds again. Each step of `src/fail.rs` is gone through first, in an order of the seed's; the
//! binary with those steps is built by the test. Where no file system can be mounted the rounds with a full disk are left out, which
//! it says. The soak is in [`soak`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]
#![allow(dead_code, reason = "the support is the black-box tests' too")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod disk;
mod load;
mod plan;
mod soak;
mod upstream;
mod world;

use std::time::{Duration, Instant};

use gatepost::fail::STEPS;
use plan::Plan;
use support::random::Random;
use world::World;

/// How long without being told.
const DEFAULT: Duration = Duration::from_secs(30);
/// Now and then all that is parked is released, and must be at the upstream.
const SETTLE_EVERY: usize = 25;
/// How often a step is tried again that was not come to.
const TRIES_MORE: usize = 4;

#[test]
fn nothing_is_lost_whatever_breaks() {
    if !disk::enter("nothing_is_lost_whatever_breaks") {
        return; // another process, which can mount, has done it
    }
    let (mut rounds, mut budget) = (usize::MAX, DEFAULT);
    match std::env::var("GATEPOST_FAULTS").as_deref() {
        Ok(text) if text.ends_with('m') => {
            budget = Duration::from_secs(60 * number(text.trim_end_matches('m')));
        }
        Ok(text) if text.ends_with('s') => budget = Duration::from_secs(number(text.trim_end_matches('s'))),
        Ok(text) => (rounds, budget) = (usize::try_from(number(text)).unwrap(), Duration::MAX),
        Err(_) => {}
    }
    let seed =
        std::env::var("GATEPOST_SEED").map_or_else(|_| u64::from(std::process::id()), |text| number(&text));
    println!("GATEPOST_SEED={seed}");
    let mut world = World::new(disk::can_mount());
    let mut random = Random::new(seed);
    let mut plans = Plan::first(&mut random, disk::can_mount());
    let began = Instant::now();
    let mut round = 0;
    while round < rounds && began.elapsed() < budget {
        let plan = plans.pop().unwrap_or_else(|| Plan::draw(&mut random, disk::can_mount()));
        world.play(round, &plan, &mut random);
        round += 1;
        if round % SETTLE_EVERY == 0 {
            world.settle();
        }
    }
    // Whether a step is come to in its round depends on what else the machine does.
    for _ in 0..TRIES_MORE {
        let never = if plans.is_empty() { world.never_reached() } else { Vec::new() };
        let missed = |step: &&&str| never.iter().any(|kind| *kind == format!("kill at {step}"));
        let steps: Vec<&str> = STEPS.iter().filter(missed).copied().collect();
        for step in steps {
            world.play(round, &Plan::KillAt { step, times: 1 }, &mut random);
            round += 1;
        }
    }
    world.settle();
    world.expect_notices();
    let never = if plans.is_empty() { world.never_reached() } else { Vec::new() };
    println!("{round} rounds in {} s (GATEPOST_SEED={seed}): {}", began.elapsed().as_secs(), world.summary());
    if !plans.is_empty() {
        println!("the time was over before {} steps were gone through", plans.len());
    }
    assert!(never.is_empty(), "steps that were never reached: {never:?}");
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}
