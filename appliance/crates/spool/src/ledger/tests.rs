use super::book::{MAX_LINES, MAX_PAGES};
use super::*;
use crate::sim::{Fail, SimFs, Unsynced};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: i64 = 1_000_000;

fn stretch(from: i64, to: i64, frames: u64) -> Stretch {
    Stretch { from_unix_micros: from * SECOND, to_unix_micros: to * SECOND, frames, bytes: frames * 100 }
}

fn lost(cause: LossCause) -> Fate {
    Fate::Lost(Why::Backlog(cause))
}

fn ledger() -> Arc<Ledger> {
    Arc::default()
}

fn lines(ledger: &Ledger) -> Vec<(&'static str, Stretch)> {
    let answer = ledger.query(&Query { limit: usize::MAX, ..Query::default() });
    answer.lines.into_iter().map(|line| (line.state.as_str(), line.stretch)).collect()
}

fn all(name: &str) -> Query {
    Query { mountpoint: Some(name.into()), limit: 100, ..Query::default() }
}

#[test]
fn stretches_that_touch_are_one_and_the_count_is_exact() {
    let ledger = ledger();
    let page = ledger.handle("yard", "main", "v1");
    for second in 0..1_000 {
        page.settle(Fate::Delivered, stretch(second, second, 25));
    }
    page.settle(lost(LossCause::Bytes), stretch(1_000, 1_010, 250));
    page.settle(Fate::Delivered, stretch(1_011, 1_020, 225));
    page.pending(Some(stretch(1_020, 1_030, 10)));
    assert_eq!(
        lines(&ledger),
        [
            ("delivered", stretch(0, 999, 25_000)),
            ("lost", stretch(1_000, 1_010, 250)),
            ("delivered", stretch(1_011, 1_020, 225)),
            ("pending", stretch(1_020, 1_030, 10)),
        ]
    );
    page.pending(None);
    assert_eq!(lines(&ledger).len(), 3);
}

#[test]
fn answers_are_by_mountpoint_and_time_and_come_in_pages() {
    let ledger = ledger();
    for name in ["yard", "gate"] {
        for track in ["v1", "a1"] {
            let page = ledger.handle(name, "main", track);
            for hour in 0..10 {
                page.settle(Fate::Delivered, stretch(hour * 3_600, hour * 3_600 + 1_800, 1));
            }
        }
    }
    assert_eq!(ledger.query(&all("yard")).lines.len(), 20);
    assert_eq!(ledger.query(&all("nowhere")).lines.len(), 0);
    let window = Query {
        from_unix_micros: Some(3_600 * SECOND),
        to_unix_micros: Some(2 * 3_600 * SECOND),
        ..all("gate")
    };
    assert_eq!(ledger.query(&window).lines.len(), 2);
    let (mut query, mut seen) = (Query { limit: 7, ..Query::default() }, Vec::new());
    loop {
        let answer = ledger.query(&query);
        seen.extend(answer.lines);
        let Some(next) = answer.next else { break };
        assert_eq!(next.to_string().parse(), Ok(next));
        query.cursor = Some(next);
    }
    let whole = ledger.query(&Query { limit: 1_000, ..Query::default() });
    assert_eq!(seen, whole.lines);
    assert_eq!("12".parse::<Cursor>(), Err(CursorError));
}

#[test]
fn it_is_bounded_and_says_what_may_be_forgotten() {
    let ledger = ledger();
    let page = ledger.handle("yard", "main", "v1");
    for minute in 0..MAX_LINES as i64 + 100 {
        page.settle(Fate::Delivered, stretch(minute * 60, minute * 60 + 1, 1));
    }
    let answer = ledger.query(&Query { limit: usize::MAX, ..Query::default() });
    assert_eq!(answer.lines.len(), MAX_LINES);
    assert_eq!(answer.forgotten_before_unix_micros, Some((99 * 60 + 1) * SECOND));
    for number in 0..MAX_PAGES + 10 {
        let at = 10_000_000 + number as i64;
        ledger.handle(&format!("m{number}"), "main", "v1").settle(Fate::Sent, stretch(at, at, 1));
    }
    let answer = ledger.query(&Query { limit: usize::MAX, ..Query::default() });
    assert_eq!(answer.lines.len(), MAX_PAGES);
}

fn open(fs: &SimFs, ledger: &Ledger) -> Log {
    Log::open(Box::new(fs.clone()), ledger).unwrap()
}

fn fill(ledger: &Arc<Ledger>, log: &mut Log, seconds: i64) {
    let page = ledger.handle("yard", "main", "v1");
    let mut now = Instant::now();
    for second in 0..seconds {
        let fate = if second % 600 < 30 { lost(LossCause::Age) } else { Fate::Delivered };
        page.settle(fate, stretch(second, second, 25));
        page.pending(Some(stretch(second, second + 1, 25)));
        now += Duration::from_secs(1);
        log.turn(ledger, now);
    }
}

#[test]
fn it_survives_a_stop_in_order_and_is_saved_seldom() {
    let fs = SimFs::default();
    let first = ledger();
    let mut log = open(&fs, &first);
    fill(&first, &mut log, 3_600);
    assert!(fs.steps() < 3_600 / 60 * 2 + 6 * 7 * 2, "{} steps", fs.steps());
    log.close(&first);
    let second = ledger();
    open(&fs, &second);
    assert_eq!(lines(&second), lines(&first));
    // Pending frames that nobody finds again were lost by the stop.
    second.handle("yard", "main", "v1").resume(Some(stretch(3_599, 3_599, 10)));
    assert!(
        lines(&second).contains(&("lost", Stretch { frames: 15, bytes: 1_500, ..stretch(3_599, 3_600, 0) }))
    );
}

#[test]
fn after_a_stop_without_warning_the_time_between_is_said_to_be_unknown() {
    let fs = SimFs::default();
    let first = ledger();
    fill(&first, &mut open(&fs, &first), 300);
    let after = fs.after_cut(Unsynced::Gone, 0);
    let second = ledger();
    open(&after, &second);
    let page = second.handle("yard", "main", "v1");
    let saved = lines(&second);
    let newest = saved.iter().map(|(_, stretch)| stretch.to_unix_micros).max().unwrap();
    assert!(newest >= 235 * SECOND, "{saved:?}");
    page.resume(None);
    page.settle(Fate::Delivered, stretch(1_000, 1_001, 25));
    let now = lines(&second);
    assert!(
        now.contains(&(
            "unknown",
            Stretch { from_unix_micros: newest, frames: 0, bytes: 0, ..stretch(0, 1_000, 0) }
        )) || now
            .iter()
            .any(|(state, stretch)| *state == "unknown" && stretch.to_unix_micros == 1_000 * SECOND),
        "{now:?}"
    );
}

#[test]
fn a_page_that_has_just_begun_is_known_after_a_cut() {
    let fs = SimFs::default();
    let (first, start) = (ledger(), Instant::now());
    let mut log = open(&fs, &first);
    for second in 0..10 {
        first.handle("gate", "main", "").settle(Fate::Sent, stretch(100 + second, 101 + second, 25));
        log.turn(&first, start + Duration::from_secs(second.unsigned_abs()));
    }
    let after = fs.after_cut(Unsynced::Gone, 0);
    let second = ledger();
    open(&after, &second);
    second.handle("gate", "main", "").resume(None);
    second.handle("gate", "main", "").settle(Fate::Sent, stretch(200, 201, 25));
    let states: Vec<_> = lines(&second).into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["sent", "unknown", "sent"]);
}

#[test]
fn every_write_step_may_be_the_last() {
    let whole = SimFs::default();
    let book = ledger();
    let mut log = open(&whole, &book);
    fill(&book, &mut log, 400);
    log.close(&book);
    for cut in 0..=whole.steps() {
        for (unsynced, names) in
            [(Unsynced::Gone, 0), (Unsynced::Half, 1), (Unsynced::Zeros, 9), (Unsynced::There, 9)]
        {
            let fs = SimFs::default();
            fs.failing(Fail::CutBefore(cut));
            let book = ledger();
            let mut log = open(&fs, &book);
            fill(&book, &mut log, 400);
            log.close(&book);
            let after = fs.after_cut(unsynced, names);
            let found = ledger();
            let mut log = open(&after, &found);
            // What is there is a true beginning of what was told.
            let settled: u64 =
                lines(&found).iter().filter(|(state, _)| *state != "pending").map(|(_, s)| s.frames).sum();
            assert!(settled <= 400 * 25 && settled.is_multiple_of(25), "cut {cut} {unsynced:?}: {settled}");
            found.handle("gate", "main", "").settle(Fate::Sent, stretch(5_000, 5_001, 3));
            log.turn(&found, Instant::now());
            log.turn(&found, Instant::now() + Duration::from_secs(61));
            let again = ledger();
            open(&after, &again);
            assert_eq!(lines(&again), lines(&found), "cut {cut} {unsynced:?}");
        }
    }
}

#[test]
fn the_log_does_not_grow_for_ever() {
    let fs = SimFs::default();
    let book = ledger();
    let mut log = open(&fs, &book);
    fill(&book, &mut log, 200_000);
    assert!(fs.used() < (1 << 20) + (64 << 10), "{}", fs.used());
    let settled: u64 =
        lines(&book).iter().filter(|(state, _)| *state != "pending").map(|(_, s)| s.frames).sum();
    assert_eq!(settled, 200_000 * 25);
}
