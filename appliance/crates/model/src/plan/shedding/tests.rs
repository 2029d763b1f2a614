use super::*;
use crate::Config;
use crate::plan::{Known, KnownEncoder, plan};
use fieldgate_media::Codec;

fn three() -> Plan {
    let text = r#"{"mountpoints": {
        "door": {"source": {"kind": "test"}, "priority": 90},
        "yard": {"source": {"kind": "test"}, "priority": 50},
        "roof": {"source": {"kind": "test"}, "priority": 10}}}"#;
    plan(&Config::parse(text).unwrap(), &known(1_000))
}

fn known(cpu_us_per_megapixel: u32) -> Known {
    let encoder = KnownEncoder {
        name: "openh264enc".into(),
        codec: Codec::H264,
        hardware: false,
        sessions: None,
        cpu_us_per_megapixel,
        kilopixels_per_second: None,
    };
    Known { encoders: vec![encoder], is_measured: true, cores: 4, ..Known::default() }
}

fn hot(temperature_c: i32) -> Readings {
    Readings {
        temperature_c: Some(temperature_c),
        temperature_limit_c: 80,
        cpu_limit_percent: 320,
        cpu_percent: Some(50),
        pressure: Some(0),
    }
}

fn names(shedder: &Shedder) -> Vec<&str> {
    shedder.shed().iter().map(|shed| shed.mountpoint.as_str()).collect()
}

/// Looks every two seconds from `from` to `to`.
fn pass(shedder: &mut Shedder, plan: &Plan, readings: Readings, from: u64, to: u64) -> Vec<(u64, Turn)> {
    let mut turns = Vec::new();
    for second in (from..to).step_by(2) {
        let turned = shedder.look(Duration::from_secs(second), plan, &readings);
        turns.extend(turned.into_iter().map(|turn| (second, turn)));
    }
    turns
}

#[test]
fn heat_takes_the_least_important_first_and_never_the_last() {
    let (plan, mut shedder) = (three(), Shedder::default());
    let turns = pass(&mut shedder, &plan, hot(85), 0, 120);
    assert_eq!(names(&shedder), ["roof", "yard"]);
    assert_eq!(turns.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [0, 20]);
    assert!(
        matches!(&turns[0].1, Turn::Shed(shed) if shed.cause == Cause::Heat && shed.reason.contains("85"))
    );
}

#[test]
fn what_went_last_comes_back_first_once_it_is_cool_for_long() {
    let (plan, mut shedder) = (three(), Shedder::default());
    pass(&mut shedder, &plan, hot(85), 0, 40);
    // Just below the limit nothing changes: that would swing.
    assert!(pass(&mut shedder, &plan, hot(77), 40, 400).is_empty());
    let turns = pass(&mut shedder, &plan, hot(60), 400, 560);
    let back: Vec<_> = turns
        .iter()
        .map(|(second, turn)| match turn {
            Turn::TakenBack(shed) => (*second, shed.mountpoint.as_str()),
            Turn::Shed(_) => panic!("{turn:?}"),
        })
        .collect();
    assert_eq!(back, [(460, "yard"), (520, "roof")]);
    assert!(shedder.shed().is_empty());
}

#[test]
fn a_short_peak_sheds_nothing_and_a_long_one_does() {
    let (plan, mut shedder) = (three(), Shedder::default());
    let busy = Readings { cpu_percent: Some(390), pressure: Some(70), ..hot(40) };
    assert!(pass(&mut shedder, &plan, busy, 0, 8).is_empty());
    assert!(pass(&mut shedder, &plan, hot(40), 8, 20).is_empty());
    let turns = pass(&mut shedder, &plan, busy, 20, 34);
    assert_eq!((names(&shedder), turns.len()), (vec!["roof"], 1));
    // Others that keep the machine busy are no reason: nothing would be won.
    let mut shedder = Shedder::default();
    let others = Readings { cpu_percent: Some(20), ..busy };
    assert!(pass(&mut shedder, &plan, others, 0, 100).is_empty());
}

#[test]
fn what_does_not_fit_goes_at_once_and_returns_with_the_room() {
    let mut text = serde_json::json!({"limits": {"cpu_percent": 1}, "mountpoints": {
        "door": {"source": {"kind": "test"}, "priority": 90},
        "yard": {"source": {"kind": "test"}, "priority": 50}}});
    let of = |text: &serde_json::Value| plan(&Config::parse(&text.to_string()).unwrap(), &known(9_000));
    let (full, mut shedder) = (of(&text), Shedder::default());
    let turns = shedder.look(Duration::ZERO, &full, &hot(30));
    assert!(matches!(turns.as_slice(), [Turn::Shed(shed)] if shed.cause == Cause::Capacity));
    assert_eq!(names(&shedder), ["yard"]);
    text["limits"]["cpu_percent"] = 90.into();
    let turns = shedder.look(Duration::from_secs(2), &of(&text), &hot(30));
    assert!(matches!(turns.as_slice(), [Turn::TakenBack(_)]) && shedder.shed().is_empty());
}

#[test]
fn what_is_not_configured_any_more_is_forgotten() {
    let (plan, mut shedder) = (three(), Shedder::default());
    pass(&mut shedder, &plan, hot(85), 0, 2);
    assert_eq!(names(&shedder), ["roof"]);
    shedder.look(Duration::from_secs(2), &Plan::default(), &hot(78));
    assert!(shedder.shed().is_empty());
}

#[test]
fn without_sensors_nothing_is_shed_but_what_does_not_fit() {
    let (plan, mut shedder) = (three(), Shedder::default());
    assert!(pass(&mut shedder, &plan, Readings::default(), 0, 300).is_empty());
}
