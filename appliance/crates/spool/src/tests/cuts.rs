//! The power is cut before every single write step.

use super::*;

/// A day in the life of a backlog; returns what it named as lost. Stops when the power is gone.
fn story(fs: &SimFs) -> Vec<Lost> {
    let mut bench = Bench::open(fs, settings(256 << 10));
    bench.append(header(0, 1));
    bench.fill(0..60);
    bench.release(15);
    bench.fill(60..200);
    bench.release(120);
    bench.pass(20);
    bench.fill(200..700);
    bench.pass(1);
    let losses = bench.losses();
    bench.close();
    losses
}

#[test]
fn every_write_step_may_be_the_last() {
    let whole = SimFs::default();
    whole.failing(Fail::Never);
    let all_losses = story(&whole);
    let steps = whole.steps();
    assert!(steps > 100, "{steps}");
    let dropped = all_losses.last().unwrap().ids.end;
    for cut in 0..=steps {
        for (unsynced, names) in [
            (Unsynced::Gone, 0),
            (Unsynced::There, usize::MAX),
            (Unsynced::Half, usize::MAX),
            (Unsynced::Zeros, usize::MAX),
            (Unsynced::Half, 1),
        ] {
            let fs = SimFs::default();
            fs.failing(Fail::CutBefore(cut));
            let named = story(&fs);
            let after = fs.after_cut(unsynced, names);
            let mut bench = Bench::open(&after, settings(256 << 10));
            let ids = bench.ids(0);
            let context = format!("cut before step {cut}, {unsynced:?}, {names} names: {ids:?}");
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{context}");
            let (first, last) = (ids.first().copied().unwrap_or(0), ids.last().copied());
            // Nothing is missing between the oldest that was not dropped or released and the newest.
            let mut known: Vec<std::ops::Range<u64>> =
                bench.losses().into_iter().map(|lost| lost.ids).collect();
            known.extend(named.into_iter().map(|lost| lost.ids));
            for id in first..last.map_or(0, |last| last + 1) {
                assert!(ids.contains(&id) || known.iter().any(|lost| lost.contains(&id)), "{id}; {context}");
            }
            assert!(first <= dropped.max(120), "{context}");
            for packet in bench.read_all(0).iter().filter(|packet| packet.is_frame()) {
                assert_eq!(packet, &frame(packet.id, packet.id % 10 == 0, 1_000));
            }
            // And it goes on.
            let next = bench.core.shared().lock().held().next_id.max(10_000_000);
            assert!(last.is_none_or(|last| last < next));
            bench.fill(next..next + 10);
            bench.pass(1);
            assert_eq!(bench.ids(next), range(next..next + 10), "{context}");
            assert!(bench.fs.used() <= (256 << 10) + 8_192);
        }
    }
}

#[test]
fn what_was_said_to_be_on_disk_survives_any_cut() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(4 << 20));
    bench.fill(0..300);
    bench.pass(1);
    assert_eq!(bench.core.shared().lock().queue.bytes(), 0);
    let after = fs.after_cut(Unsynced::Gone, 0);
    assert_eq!(Bench::open(&after, settings(4 << 20)).ids(0), range(0..300));
}

#[test]
fn a_torn_last_batch_is_named_and_the_rest_is_delivered() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(4 << 20));
    bench.fill(0..100);
    let before = fs.files();
    let (name, whole) = before.iter().find(|(name, _)| name.ends_with(".seg")).cloned().unwrap();
    for keep in (1..5_000).step_by(37) {
        let torn = fs.after_cut(Unsynced::There, usize::MAX);
        let mut bytes = vec![0; whole];
        torn.read_at(&name, 0, &mut bytes).unwrap();
        bytes.truncate(whole - keep);
        torn.put(&name, &bytes);
        let mut bench = Bench::open(&torn, settings(4 << 20));
        let ids = bench.ids(0);
        assert_eq!(ids, range(0..ids.len() as u64));
        assert!(ids.len() >= 90, "{keep}: {}", ids.len());
        bench.append(frame(9_000_000, true, 10));
        let losses = bench.losses();
        let torn_ids =
            losses.iter().filter(|lost| lost.cause == LossCause::Torn).map(|lost| lost.ids.clone());
        let torn_ids: Vec<std::ops::Range<u64>> = torn_ids.collect();
        assert_eq!((torn_ids.len(), torn_ids[0].clone()), (1, ids.len() as u64..100), "{keep}");
    }
}
