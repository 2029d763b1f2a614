use super::*;
use bytes::Bytes;
use fieldgate_media::{Codec, Draft, Ticks, Track, TrackId, Tracks, UnitHead};

fn mountpoint(grace: Duration) -> Arc<Mountpoint> {
    Mountpoint::new("yard".into(), 0, Limits { grace, ..Limits::default() }, Arc::new(()))
}

fn info(from: &str) -> PublisherInfo {
    PublisherInfo { kind: "rtmp", from: from.into(), since_unix_micros: 0, rtmp: None }
}

fn announce(publisher: &mut Publisher) {
    publisher.announce(Tracks::new(vec![Track::new(
        TrackId::VIDEO,
        Codec::H264,
        Bytes::from_static(b"avcC"),
    )]));
}

fn publish(publisher: &mut Publisher, millis: i64) {
    let dts = Ticks::from_millis(millis);
    let head = UnitHead {
        track: TrackId::VIDEO,
        dts,
        pts: dts,
        source_dts: dts,
        source_pts: dts,
        keyframe: true,
        captured: None,
    };
    assert!(publisher.publish(Draft::copied(head, b"picture")));
}

#[tokio::test(start_paused = true)]
async fn a_second_publisher_is_refused_and_named() {
    let (shard, mountpoint) = (LocalShard::new(0), mountpoint(Duration::ZERO));
    let first = mountpoint.claim(&shard, info("10.0.0.1:4000")).unwrap();
    let refused = mountpoint.claim(&shard, info("10.0.0.2:4000")).err().unwrap();
    assert_eq!(refused.to_string(), "mountpoint yard is already being published by 10.0.0.1:4000");
    drop(first);
    assert!(mountpoint.claim(&shard, info("10.0.0.2:4000")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_publisher_back_within_the_grace_keeps_subscribers_and_timeline() {
    let (shard, mountpoint) = (LocalShard::new(0), mountpoint(Duration::from_secs(5)));
    let keeper = tokio::task::LocalSet::new();
    let kept = mountpoint.clone();
    keeper.spawn_local(async move { kept.keep().await });
    keeper
        .run_until(async {
            let mut first = mountpoint.claim(&shard, info("a")).unwrap();
            announce(&mut first);
            publish(&mut first, 9_000);
            let mut reader = mountpoint.subscribe(None);
            drop(first);
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut second = mountpoint.claim(&shard, info("b")).unwrap();
            announce(&mut second);
            publish(&mut second, 0);
            let mut entries = Vec::new();
            while reader.take(&mut entries, 10, 1000).more {}
            let times: Vec<i64> = entries.iter().map(|entry| entry.dts().as_millis()).collect();
            assert_eq!(times.last(), Some(&12_000), "3 s after the last unit");
            assert_eq!(*mountpoint.state().borrow(), StreamState::Live(2));
            assert_eq!(reader.dropped_units(), 0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_stays_away_ends_the_stream() {
    let (shard, mountpoint) = (LocalShard::new(0), mountpoint(Duration::from_secs(5)));
    let local = tokio::task::LocalSet::new();
    let kept = mountpoint.clone();
    let keeper = local.spawn_local(async move { kept.keep().await });
    local
        .run_until(async {
            let mut first = mountpoint.claim(&shard, info("a")).unwrap();
            announce(&mut first);
            publish(&mut first, 9_000);
            drop(first);
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert_eq!(*mountpoint.state().borrow(), StreamState::Idle);
            assert_eq!(mountpoint.ring().counters().held_units, 0);
            let mut next = mountpoint.claim(&shard, info("b")).unwrap();
            announce(&mut next);
            publish(&mut next, 500);
            assert_eq!(mountpoint.ring().newest_dts(), Some(Ticks::from_millis(500)), "a new timeline");
            mountpoint.close();
            assert!(next.kicked().is_cancelled());
            keeper.await.unwrap();
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_publisher_at_once_and_refuses_who_asked_before_it() {
    let (shard, mountpoint) = (LocalShard::new(0), mountpoint(Duration::from_secs(5)));
    let asked = mountpoint.epoch();
    let mut first = mountpoint.claim(&shard, info("a")).unwrap();
    announce(&mut first);
    publish(&mut first, 0);
    assert!(mountpoint.tap().newest_keyframe().is_some());
    mountpoint.set_masked(true);
    mountpoint.cut();
    assert!(first.kicked().is_cancelled());
    let head = UnitHead {
        track: TrackId::VIDEO,
        dts: Ticks::from_millis(40),
        pts: Ticks::from_millis(40),
        source_dts: Ticks::ZERO,
        source_pts: Ticks::ZERO,
        keyframe: true,
        captured: None,
    };
    assert!(!first.publish(Draft::copied(head, b"bare")));
    assert!(mountpoint.tap().newest_keyframe().is_none(), "no snapshot of it either");
    drop(first);
    assert!(matches!(mountpoint.claim_in(asked, &shard, info("a")), Err(MountpointError::Cut { .. })));
    assert!(matches!(mountpoint.claim(&shard, info("b")), Err(MountpointError::Masked { .. })));
    assert!(mountpoint.claim_in(mountpoint.epoch(), &shard, info("c")).is_ok());
}
