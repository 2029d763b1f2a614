//! The power is cut at every write: the writes of a gateway's disk are logged and played back up to any of them, in part,
//! torn, and what is left is given to a gateway that starts.
//!
//! `POWER_STATES` says how many states, `POWER_SEED` which; `scripts/slow cuts` takes hundreds.

mod block;
mod far_end;
mod judge;
mod story;
mod update;

use crate::common::scratch::Scratch;
use block::{Cuts, Dice};
use std::sync::Arc;
use std::time::Instant;
use story::Stage;
use update::Update;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn after_a_power_cut_at_any_write_config_and_ledger_are_true() {
    if !block::may() {
        return;
    }
    let (states, seed) = (number("POWER_STATES", 10), number("POWER_SEED", 1));
    let scratch = Arc::new(Scratch::new());
    let began = Instant::now();
    let story = Stage::set(&scratch).play();
    let mut cuts = Cuts::of(&scratch);
    println!("seed {seed}: {} writes and flushes in {:?}", cuts.count(), began.elapsed());
    let mut dice = Dice(seed);
    let disk = scratch.join("after");
    for cut in cuts.draw(states, &mut dice) {
        println!("seed {seed}: {}", cuts.make(cut, &mut dice, &disk));
        story.judge(&disk, cuts.end(cut));
    }
    println!("seed {seed}: {states} states in {:?}", began.elapsed());
}

#[test]
fn after_a_power_cut_at_any_write_of_an_update_a_whole_slot_is_started() {
    if !block::may() || !crate::rauc::may() {
        return;
    }
    let (states, seed) = (number("POWER_STATES", 12), number("POWER_SEED", 1));
    Update::record().cut(states, seed);
}
