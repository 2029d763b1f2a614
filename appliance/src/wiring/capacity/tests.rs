use super::*;
use fieldgate_model::job::{EncoderTrial, Measured};
use fieldgate_net::RtmpForm;
use fieldgate_worker::Probed;

/// A machine whose software encoder takes so much of a core for a million pixels.
pub(crate) fn capacity(cpu_us_per_megapixel: u32) -> Capacity {
    let encoders = Encoders::with_prover(Box::new(move |_, _| {
        Box::pin(async move {
            let measured = Measured { cpu_us_per_megapixel, ..Measured::default() };
            let trial = EncoderTrial {
                name: "openh264enc".into(),
                hardware: false,
                chosen: true,
                works: true,
                reason: "encoded 16 of 16 pictures".into(),
                measured: Some(measured),
            };
            Probed { trials: vec![trial], decoders: Vec::new(), wish: None, error: None }
        })
    }));
    let registry = Arc::new(Registry::new(1, Arc::new(RtmpForm)));
    let sensors = Sensors::new("/nonexistent");
    Capacity::new(Arc::new(encoders), registry, Arc::default(), crate::clock::wall_clock(None), sensors)
}

/// Test pictures with these priorities, each named after its own.
fn config(priorities: &[u8], cpu_percent: u8) -> Config {
    let mountpoints: serde_json::Map<String, serde_json::Value> = priorities
        .iter()
        .map(|priority| {
            (format!("p{priority}"), serde_json::json!({"source": {"kind": "test"}, "priority": priority}))
        })
        .collect();
    let config = serde_json::json!({"limits": {"cpu_percent": cpu_percent}, "mountpoints": mountpoints});
    Config::from_value(config).unwrap()
}

fn look(capacity: &Capacity, shedder: &mut Shedder, config: &Config) {
    let plan = plan(config, &capacity.known(config, &BTreeMap::new()));
    capacity.settle(shedder, Duration::ZERO, plan, Readings::default(), true);
}

#[tokio::test]
async fn a_change_is_measured_before_it_is_refused_and_a_smaller_one_is_taken() {
    // More than a core for each, so two do not fit next to each other below 1 % of any machine.
    let capacity = capacity(200_000);
    let (one, two) = (config(&[50], 1), config(&[50, 60], 1));
    assert!(
        capacity.refusals(&Config::default(), &one).await.is_empty(),
        "the most important is never refused"
    );
    let problems = capacity.refusals(&one, &two).await;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].path, "mountpoints.p50.source");
    assert!(capacity.refusals(&two, &one).await.is_empty());
    assert!(capacity.refusals(&two, &two).await.is_empty(), "what was too much before refuses nothing");
}

#[tokio::test]
async fn what_does_not_fit_waits_and_runs_once_there_is_room() {
    let capacity = Arc::new(capacity(200_000));
    capacity.encoders.measure(&CancellationToken::new()).await;
    let mut shedder = Shedder::default();
    look(&capacity, &mut shedder, &config(&[10, 50, 90], 1));
    let status = capacity.status();
    let names: Vec<&str> = status.shed.iter().map(|shed| shed.shed.mountpoint.as_str()).collect();
    assert_eq!(names, ["p10", "p50"], "the least important first");
    assert_eq!(status.events.len(), 2);
    assert_eq!(status.events[0].kind, EventKind::LoadShed);
    assert_eq!(status.events[0].mountpoint.as_deref(), Some("p10"));
    capacity.admitted("p90", None, || panic!("the most important does not wait")).await;

    let mut waits = false;
    {
        let mut waiting = pin!(capacity.admitted("p10", None, || waits = true));
        let still = timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(still.is_err(), "it waits while it is left out");
        look(&capacity, &mut shedder, &config(&[10], 1));
        waiting.await;
    }
    assert!(waits);
    assert!(capacity.status().shed.is_empty());
    assert_eq!(capacity.status().events.len(), 4);
    // And it is told when it must go again.
    look(&capacity, &mut shedder, &config(&[10, 90], 1));
    capacity.shed("p10", None).await;
}

#[tokio::test]
async fn the_planned_encoder_is_the_one_to_use() {
    let capacity = capacity(1_000);
    assert_eq!(capacity.encoder_for("p50"), None);
    capacity.encoders.measure(&CancellationToken::new()).await;
    look(&capacity, &mut Shedder::default(), &config(&[50], 80));
    assert_eq!(capacity.encoder_for("p50").as_deref(), Some("openh264enc"));
    assert!(capacity.status().measured);
}
