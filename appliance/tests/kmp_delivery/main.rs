//! What KMP pushes deliver when receivers, links, disks and processes fail: real sockets, real files, real time.
//!
//! Every frame carries its number, and the far end keeps its own books: what the ledger says is held against them.
//! Started as `BINARY sender ...` this binary is a sender that its parent kills, as `BINARY filler ...` one that fills a
//! spool and is killed too.
//!
//! `--ignored` runs the cases that take long (`scripts/slow kmp`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a main of its own")]
#![allow(clippy::disallowed_methods, reason = "real sockets and processes run in real time")]

mod camera;
mod damage;
mod far_end;
mod killed;
mod live_first;
mod outages;
mod random;
mod record;

use std::process::ExitCode;

struct Test {
    name: &'static str,
    run: fn(),
    slow: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "sender") {
        return killed::sender(&args[1..]);
    }
    if args.first().is_some_and(|arg| arg == "filler") {
        return damage::filler(&args[1..]);
    }
    let test = |name, run, slow| Test { name, run, slow };
    let tests = [
        test("random_receivers_lose_nothing", random::random_receivers_lose_nothing, false),
        test("what_random_receivers_miss_is_named", random::what_random_receivers_miss_is_named, false),
        test(
            "live_goes_first_and_nothing_is_missing",
            live_first::live_goes_first_and_nothing_is_missing,
            false,
        ),
        test(
            "what_is_owed_outlives_the_process_and_is_told_once",
            live_first::what_is_owed_outlives_the_process_and_is_told_once,
            false,
        ),
        test("an_outage_of_a_second_loses_nothing", outages::an_outage_of_a_second_loses_nothing, false),
        test("an_outage_of_a_minute_loses_nothing", outages::an_outage_of_a_minute_loses_nothing, false),
        test("an_outage_of_an_hour_loses_nothing", outages::an_outage_of_an_hour_loses_nothing, false),
        test(
            "beyond_the_byte_budget_the_oldest_are_lost_and_named",
            outages::beyond_the_byte_budget_the_oldest_are_lost_and_named,
            false,
        ),
        test(
            "beyond_the_age_budget_the_oldest_are_lost_and_named",
            outages::beyond_the_age_budget_the_oldest_are_lost_and_named,
            false,
        ),
        test("a_killed_process_resumes", killed::a_killed_process_resumes, false),
        test("hundreds_of_killed_processes_resume", killed::hundreds_of_killed_processes_resume, true),
        test("a_flipped_bit_costs_what_it_hit", damage::a_flipped_bit_costs_what_it_hit, false),
        test("a_torn_end_costs_the_end", damage::a_torn_end_costs_the_end, false),
        test(
            "a_full_disk_costs_nothing_while_memory_has_room",
            damage::a_full_disk_costs_nothing_while_memory_has_room,
            false,
        ),
        test(
            "a_read_only_disk_costs_nothing_while_memory_has_room",
            damage::a_read_only_disk_costs_nothing_while_memory_has_room,
            false,
        ),
        test("a_spool_of_64_mb_opens_at_once", damage::a_spool_of_64_mb_opens_at_once, false),
        test("a_spool_of_1_gb_opens_within_2_s", damage::a_spool_of_1_gb_opens_within_2_s, true),
    ];
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let slow = args.iter().any(|arg| arg == "--ignored");
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    for Test { name, run, slow: is_slow } in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if is_slow != slow {
            println!("test {name} ... ignored{}", if is_slow { ": run by scripts/slow kmp" } else { "" });
            continue;
        }
        let began = tokio::time::Instant::now();
        let ok = std::panic::catch_unwind(run).is_ok();
        let took = began.elapsed().as_secs_f32();
        println!("test {name} ... {} ({took:.1} s)", if ok { "ok" } else { "FAILED" });
        passed += usize::from(ok);
        failed += usize::from(!ok);
    }
    println!("\n{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
