use super::*;
use crate::clock::wall_clock;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("fieldgate-flight-{}-{name}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    folder
}

fn texts(page: &Page) -> Vec<&str> {
    page.events.iter().map(|event| event.text.as_str()).collect()
}

fn all(recorder: &Recorder) -> Page {
    recorder.page(Wanted { since: Some(0), limit: 1_000 }, |_| true)
}

fn config(flash_bytes_per_day: u64) -> news::Receiver<Arc<Config>> {
    let mut config = Config::default();
    config.events.flash_bytes_per_day = flash_bytes_per_day;
    news::channel(Arc::new(config)).1
}

#[tokio::test]
async fn what_was_recorded_is_there_after_a_stop_and_after_a_death_without_a_word() {
    let folder = folder("ends");
    let (recorder, keeper, notices) = Recorder::open(&folder, wall_clock(None));
    assert!(notices.is_empty(), "{notices:?}");
    recorder.note(Event::new(EventKind::Notice, "one"));
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(config(1 << 20), stop).await;
    let (recorder, keeper, _) = Recorder::open(&folder, wall_clock(None));
    assert_eq!(
        texts(&all(&recorder)),
        [
            "the gateway started",
            "one",
            "the gateway was stopped",
            "the gateway started, after it had been stopped"
        ]
    );
    // Killed: what was noted a moment before is in the kernel's hands.
    let killed = tokio::time::timeout(ROUND * 3, keeper.run(config(1 << 20), CancellationToken::new()));
    assert!(killed.await.is_err());
    let (recorder, _, _) = Recorder::open(&folder, wall_clock(None));
    let page = all(&recorder);
    assert!(page.events.last().unwrap().text.contains("ended without a word"), "{page:?}");
    let ids: Vec<u64> = page.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5], "numbers rise over restarts");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn without_a_budget_nothing_goes_to_flash_and_that_is_counted() {
    let folder = folder("budget");
    let (recorder, keeper, _) = Recorder::open(&folder, wall_clock(None));
    recorder.note(Event::new(EventKind::Notice, "one"));
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(config(0), stop).await;
    assert_eq!(recorder.status(), RecorderStatus { unwritten: 3, ..RecorderStatus::default() });
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn damage_is_told_and_the_rest_stands() {
    let folder = folder("damage");
    let (_, keeper, _) = Recorder::open(&folder, wall_clock(None));
    let stop = CancellationToken::new();
    stop.cancel();
    keeper.run(config(1 << 20), stop).await;
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (recorder, _, notices) = Recorder::open(&folder, wall_clock(None));
    assert_eq!(notices.len(), 1);
    assert_eq!(recorder.status().damaged, 1);
    let page = all(&recorder);
    assert!(page.events.last().unwrap().text.ends_with("left out: 1"), "{page:?}");
    assert!(page.events.last().unwrap().id > 3, "a number is never given twice");
    let unusable = Recorder::open(Path::new("/dev/null/x"), wall_clock(None));
    assert!(unusable.2[0].text.contains("in memory alone"), "{:?}", unusable.2);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended_and_the_ring_is_bounded() {
    let folder = folder("pages");
    let (recorder, _, _) = Recorder::open(&folder, wall_clock(None));
    for number in 0..KEPT + 10 {
        recorder.note(Event::new(EventKind::Notice, number.to_string()).of("gate"));
    }
    let first = recorder.page(Wanted { since: Some(0), limit: 600 }, |_| true);
    assert_eq!((first.events.len(), first.oldest), (600, Some(12)));
    let rest = recorder.page(Wanted { since: first.next_cursor, limit: 600 }, |_| true);
    assert_eq!(rest.events.len(), KEPT - 600);
    let end = recorder.page(Wanted { since: rest.next_cursor, limit: 600 }, |_| true);
    assert_eq!((end.events.len(), end.next_cursor), (0, rest.next_cursor));
    let newest = recorder.page(Wanted { since: None, limit: 2 }, |_| true);
    assert_eq!(texts(&newest), ["1032", "1033"]);
    let hidden = recorder.page(Wanted { since: Some(0), limit: 5 }, |_| false);
    assert_eq!((hidden.events.len(), hidden.next_cursor), (0, newest.next_cursor));
    std::fs::remove_dir_all(folder).ok();
}
