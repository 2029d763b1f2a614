//! The tables of checks in `docs/` name a test for each check of each contract, and the tests are there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
/// The page of a contract, how many checks that has, and where its tests are.
const CONTRACTS: [(&str, u32, &[&str]); 3] = [
    ("aggregator", 22, &["crates/compat/src/aggregator", "tests/system/aggregator.rs"]),
    ("node", 25, &["crates/compat/src/node", "src/wiring/mesh", "tests/mesh"]),
    (
        "coordinator",
        25,
        &[
            "crates/compat/src/coordinator",
            "crates/compat/src/control",
            "crates/compat/src/control_socket",
            "crates/compat/src/encoder",
            "src/wiring/coordinator",
            "src/wiring/encoder",
            "tests/system/coordinator.rs",
            "tests/system/control.rs",
            "tests/system/encoder.rs",
        ],
    ),
];

/// Names of the tests in a file, or in all files of a folder.
fn tests_in(place: &Path, names: &mut BTreeSet<String>) {
    if place.is_dir() {
        let entries = std::fs::read_dir(place).unwrap();
        return entries.for_each(|entry| tests_in(&entry.unwrap().path(), names));
    }
    let text = std::fs::read_to_string(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            names.insert(name.split(['(', '<']).next().unwrap().to_owned());
            is_test = false;
        }
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
    }
}

/// The numbers in the name of a test: `check_03_07_...`, `check_01_to_06_...`.
fn numbers(name: &str) -> BTreeSet<u32> {
    let mut numbers: Vec<u32> = Vec::new();
    let mut to = false;
    for part in name.strip_prefix("check_").unwrap_or_default().split('_') {
        match part.parse() {
            Ok(number) if part.len() == 2 => {
                let from = numbers.last().filter(|_| to).map_or(number, |last| last + 1);
                numbers.extend(from..=number);
                to = false;
            }
            _ if part == "to" => to = true,
            _ => break,
        }
    }
    numbers.into_iter().collect()
}

/// The rows of a page's table, by number.
fn rows(page: &str) -> BTreeMap<u32, Vec<&str>> {
    let lines = page.lines().filter_map(|line| {
        let (number, _) = line.strip_prefix("| ")?.split_once(' ')?;
        // What is between backticks.
        Some((number.parse().ok()?, line.split('`').skip(1).step_by(2).collect()))
    });
    lines.collect()
}

#[test]
fn each_check_of_each_contract_has_a_test_with_its_number() {
    let mut holes = Vec::new();
    for (contract, checks, places) in CONTRACTS {
        let page = PathBuf::from(HERE).join(format!("docs/{contract}.md"));
        let page = std::fs::read_to_string(page).unwrap();
        let mut tests = BTreeSet::new();
        places.iter().for_each(|place| tests_in(&PathBuf::from(HERE).join(place), &mut tests));
        let rows = rows(&page);
        if !rows.keys().copied().eq(1..=checks) {
            holes.push(format!("{contract}: rows {:?} instead of 1 to {checks}", rows.keys()));
        }
        for (check, named) in rows {
            let mut is_held = false;
            for name in named {
                let name = name.rsplit("::").next().unwrap_or(name);
                let (begin, is_short) = match name.strip_suffix("...") {
                    Some(begin) => (begin, true),
                    None => (name, false),
                };
                if !begin.starts_with("check_") {
                    continue;
                }
                let is_meant =
                    |test: &&String| if is_short { test.starts_with(begin) } else { *test == begin };
                let found: Vec<&String> = tests.iter().filter(is_meant).collect();
                is_held |= found.iter().any(|test| numbers(test).contains(&check));
                if found.is_empty() {
                    holes.push(format!("{contract} {check}: there is no test {name}"));
                }
            }
            if !is_held {
                holes.push(format!("{contract} {check}: no test of that number is named"));
            }
        }
    }
    assert!(holes.is_empty(), "{}", holes.join("\n"));
}

#[test]
fn numbers_stand_at_the_beginning_of_a_name() {
    let of = |name: &str| numbers(name).into_iter().collect::<Vec<_>>();
    assert_eq!(of("check_02_06_14_what_is_2_or_03"), [2, 6, 14]);
    assert_eq!(of("check_01_to_04_09_all"), [1, 2, 3, 4, 9]);
    assert!(of("checks_01_x").is_empty() && of("check_it_01").is_empty());
}
