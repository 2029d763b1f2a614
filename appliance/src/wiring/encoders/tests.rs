use super::*;
use std::sync::Arc;
use std::time::Duration;

fn trial(name: &str, hardware: bool, works: bool, reason: &str) -> EncoderTrial {
    EncoderTrial { name: name.into(), hardware, chosen: works, works, reason: reason.into(), measured: None }
}

/// A machine with these encoders; the wishes that came are kept.
fn machine(works: &'static [(&'static str, bool)]) -> (Arc<Encoders>, Arc<Mutex<Vec<EncoderWish>>>) {
    let (encoders, wishes) = forgetful(works);
    (Arc::new(encoders), wishes)
}

fn forgetful(works: &'static [(&'static str, bool)]) -> (Encoders, Arc<Mutex<Vec<EncoderWish>>>) {
    let wishes = Arc::new(Mutex::new(Vec::new()));
    let seen = wishes.clone();
    let encoders = Encoders::with_prover(Box::new(move |wish, _| {
        seen.lock().unwrap().push(wish.clone());
        Box::pin(async move {
            // Others get their turn, as they do while a real worker tries.
            tokio::task::yield_now().await;
            let mut trials = vec![trial("v4l2h264enc", true, false, "not installed, or no such device")];
            for (name, hardware) in works {
                let is_skipped = wish.skip.iter().any(|skip| skip == name);
                let reason = if is_skipped { "left out" } else { "encoded 8 of 8 pictures" };
                trials.push(trial(name, *hardware, !is_skipped, reason));
                if !is_skipped {
                    break;
                }
            }
            Probed { trials, decoders: Vec::new(), wish: None, error: None }
        })
    }));
    (encoders, wishes)
}

fn crash() -> WorkerError {
    WorkerError::Ended { exit: Exit::Signal(11), stderr: String::new() }
}

const BOTH: &[(&str, bool)] = &[("vah264enc", true), ("openh264enc", false)];

#[tokio::test]
async fn encoders_are_tried_once_for_all_cameras() {
    let (encoders, wishes) = machine(BOTH);
    assert_eq!(encoders.found(), None, "and not before one is needed");
    let cancel = CancellationToken::new();
    let (one, two) = tokio::join!(encoders.find(&cancel), encoders.find(&cancel));
    assert_eq!((one.unwrap().name, two.unwrap().name), ("vah264enc".into(), "vah264enc".into()));
    assert_eq!(encoders.find(&cancel).await.unwrap().name, "vah264enc");
    assert_eq!(wishes.lock().unwrap().len(), 1);
    let status = encoders.found().unwrap().status();
    assert_eq!((status.name.as_str(), status.hardware), ("vah264enc", true));
    assert_eq!(status.tried, [("v4l2h264enc".into(), "not installed, or no such device".into())]);
    assert!(encoders.notices().is_empty());
}

#[tokio::test]
async fn an_encoder_that_takes_a_worker_down_gives_way_to_the_next_and_somebody_is_told() {
    let (encoders, wishes) = machine(BOTH);
    let cancel = CancellationToken::new();
    let first = encoders.find(&cancel).await.unwrap();
    assert!(encoders.note_end(&first.trials, &crash()));
    assert!(!encoders.note_end(&first.trials, &crash()), "a second camera that fell with it changes nothing");
    let next = encoders.find(&cancel).await.unwrap();
    assert_eq!(next.name, "openh264enc");
    assert_eq!(wishes.lock().unwrap().last().unwrap().skip, ["vah264enc"]);
    let notices = encoders.notices();
    assert_eq!((notices.len(), notices[0].code.as_str()), (1, "encoder_failed"));
    let text = &notices[0].text;
    assert!(text.contains("vah264enc") && text.contains("SIGSEGV") && text.contains("openh264enc"), "{text}");
}

#[tokio::test]
async fn the_last_encoder_is_never_given_up() {
    let (encoders, wishes) = machine(&[("openh264enc", false)]);
    let cancel = CancellationToken::new();
    let found = encoders.find(&cancel).await.unwrap();
    assert!(encoders.note_end(&found.trials, &crash()));
    assert_eq!(encoders.find(&cancel).await.unwrap().name, "openh264enc");
    assert!(encoders.notices()[0].text.contains("no other works"));
    assert!(!encoders.note_end(&found.trials, &crash()), "no use in trying the others each time");
    assert_eq!(wishes.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_machine_without_encoders_says_what_was_tried_and_is_asked_again() {
    let (encoders, wishes) = machine(&[]);
    let cancel = CancellationToken::new();
    let error = encoders.find(&cancel).await.unwrap_err().to_string();
    assert_eq!(error, "no encoder works here: v4l2h264enc: not installed, or no such device");
    encoders.find(&cancel).await.unwrap_err();
    assert_eq!(wishes.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_worker_found_by_itself_is_kept() {
    let (encoders, wishes) = machine(BOTH);
    encoders.learn(&[trial("openh264enc", false, false, EncoderTrial::UNDER_WAY)]);
    assert_eq!(encoders.found(), None);
    encoders.learn(&[trial("openh264enc", false, true, "encoded 8 of 8 pictures")]);
    assert_eq!(encoders.find(&CancellationToken::new()).await.unwrap().name, "openh264enc");
    assert!(wishes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_encoder_at_work_is_not_lost_by_trials_that_fail() {
    let (encoders, _) = machine(&[]);
    encoders.learn(&[trial("openh264enc", false, true, "encoded 8 of 8 pictures")]);
    encoders.measure(&CancellationToken::new()).await;
    assert!(!encoders.facts().is_measured, "they are tried again");
    assert_eq!(encoders.found().unwrap().name, "openh264enc");
    let (encoders, _) = machine(&[]);
    encoders.measure(&CancellationToken::new()).await;
    assert!(encoders.facts().is_measured, "none works, and none is at work");
}

#[tokio::test]
async fn an_encoder_that_is_not_there_any_more_is_looked_for_again() {
    let (encoders, _) = machine(BOTH);
    encoders.find(&CancellationToken::new()).await.unwrap();
    let trials = [trial("vah264enc", true, false, "not installed, or no such device")];
    let error = WorkerError::Failed { cause: "cannot encode here".into(), permanent: false };
    assert!(!encoders.note_end(&trials, &error));
    assert_eq!(encoders.found(), None);
    assert!(encoders.notices().is_empty(), "nobody fell");
}

/// Waits until the file is, or is not, there: it is written in the background.
async fn is_kept(folder: &Path) -> bool {
    // The writer has one lock, which is free again when it is done; blocking tasks are begun in their order.
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    let file = folder.join("trials.json");
    for _ in 0..1000 {
        if file.exists() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

#[tokio::test]
async fn the_next_start_on_the_same_machine_tries_none() {
    let folder = std::env::temp_dir().join(format!("fg-encoders-memo-{}", std::process::id()));
    let (here, cancel) = (Machine::here(), CancellationToken::new());
    let start = |machine: &Machine| {
        loop {
            let (encoders, wishes) = forgetful(BOTH);
            match encoders.with_memory(&folder, machine) {
                Ok(encoders) => return (encoders, wishes),
                // What the start before had to write is being written.
                Err(StoreError::Locked { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (first, wishes) = start(&here);
    let found = first.find(&cancel).await.unwrap();
    assert!(is_kept(&folder).await);
    assert_eq!(wishes.lock().unwrap().len(), 1);
    drop(first);

    let (second, wishes) = start(&here);
    assert_eq!(second.found().as_ref(), Some(&found));
    second.measure(&cancel).await;
    assert!(second.facts().is_measured && wishes.lock().unwrap().is_empty());
    // It takes a worker down: the start after this one tries all of them again.
    assert!(second.note_end(&found.trials, &crash()));
    while folder.join("trials.json").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(second.find(&cancel).await.unwrap().name, "openh264enc");
    drop(second);
    let (third, _) = start(&here);
    assert_eq!(third.found(), None);
    third.find(&cancel).await.unwrap();
    assert!(is_kept(&folder).await);
    drop(third);

    // Another kernel, and a file that says nothing.
    let mut other = serde_json::to_value(&here).unwrap();
    other["kernel"] = "another".into();
    assert_eq!(start(&serde_json::from_value(other).unwrap()).0.found(), None);
    std::fs::write(folder.join("trials.json"), b"{").unwrap();
    assert_eq!(start(&here).0.found(), None);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn only_what_looks_like_the_encoders_doing_is_blamed_on_it() {
    let hardware = trial("vah264enc", true, true, "");
    let software = trial("openh264enc", false, true, "");
    let limit = Duration::from_secs(5);
    let failed = |cause: &str| WorkerError::Failed { cause: cause.into(), permanent: false };
    let killed = || WorkerError::Ended { exit: Exit::Signal(9), stderr: String::new() };
    let stuck = || WorkerError::Stuck { pid: 7, after: Box::new(WorkerError::NoPulse { limit }) };
    for (error, by_hardware, by_software) in [
        (crash(), true, true),
        (failed("encoder: Failed to encode"), true, true),
        (failed("camera: device is gone"), false, false),
        (killed(), false, false),
        (WorkerError::NoPulse { limit }, true, false),
        (WorkerError::NoFirstUnit { limit }, true, false),
        (WorkerError::Silent { limit }, true, false),
        (stuck(), true, false),
        (WorkerError::BadStatus, false, false),
    ] {
        assert_eq!(is_to_blame(&hardware, &error), by_hardware, "hardware: {error}");
        assert_eq!(is_to_blame(&software, &error), by_software, "software: {error}");
    }
}

#[test]
fn an_encoder_gets_the_device_files_that_it_needs_and_no_others() {
    let root = std::env::temp_dir().join(format!("fg-encoders-{}", std::process::id()));
    std::fs::create_dir_all(root.join("dev/dri")).unwrap();
    for file in ["dev/video11", "dev/video2", "dev/videos", "dev/vcs", "dev/dri/renderD128", "dev/dri/card0"]
    {
        std::fs::write(root.join(file), "").unwrap();
    }
    let names = |files: Vec<PathBuf>| -> Vec<String> {
        files.iter().map(|file| file.strip_prefix(&root).unwrap().display().to_string()).collect()
    };
    let video = ["dev/video2", "dev/video11"];
    assert_eq!(names(devices_of("v4l2h264enc", &root)), video);
    assert_eq!(names(devices_of("vah264lpenc", &root)), ["dev/dri/renderD128"]);
    assert_eq!(names(devices_of("vaapih264enc", &root)), ["dev/dri/renderD128"]);
    assert!(devices_of("openh264enc", &root).is_empty());
    assert_eq!(names(encoder_devices(&root)), [&video[..], &["dev/dri/renderD128"]].concat());
    std::fs::remove_dir_all(&root).unwrap();
    assert!(encoder_devices(&root).is_empty(), "a machine without any");
}
