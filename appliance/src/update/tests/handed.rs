//! A bundle that root hands over, as `fieldgate hand-over` does it.

use super::*;

struct Handed {
    outcome: Result<HandedOver, HandOverError>,
    said: String,
}

impl Site {
    fn bring(&self, bytes: &[u8], names: &[&str]) -> PathBuf {
        let folder = self.folder.join("medium");
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        for name in names {
            fs::write(folder.join(name), b"").unwrap();
        }
        let bundle = folder.join("fieldgate.raucb");
        fs::write(&bundle, bytes).unwrap();
        bundle
    }

    /// Hands it to a gateway that runs meanwhile, in that start of the machine. RAUC ends what it begins.
    async fn hand(&self, bundle: &Path, boot: &str, live: bool) -> Handed {
        let (state, bundle, machine) = (self.folder.clone(), bundle.to_owned(), self.machine.clone());
        let handing = tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            let outcome = hand_over(&state, &bundle, Duration::from_secs(20), &mut said);
            Handed { outcome, said: String::from_utf8(said).unwrap() }
        });
        let updates = self.open(boot);
        let cancel = CancellationToken::new();
        let (_keep, config) = watch::channel(Arc::new(config(3_600)));
        let rauc = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let firmware = &mut lock(&machine).firmware;
                if firmware.operation == "installing" {
                    (firmware.percent, firmware.operation) = (100, "idle".to_owned());
                }
            }
        };
        let work = updates.clone().run(move || status(live), config, cancel.clone());
        tokio::select! {
            () = work => panic!("the keeper ended"),
            () = rauc => unreachable!(),
            handed = handing => handed.unwrap(),
        }
    }
}

fn may() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root hands a bundle over");
    }
    is_root
}

#[tokio::test]
async fn a_stick_is_copied_installed_judged_and_not_tried_again() {
    if !may() {
        return;
    }
    let site = Site::new();
    let bytes: Vec<u8> = (0..2_500_000_u32).map(|it| it as u8).collect();
    let bundle = site.bring(&bytes, &[]);
    let handed = site.hand(&bundle, "boot-1", true).await;
    assert!(matches!(handed.outcome, Ok(HandedOver::Done)), "{:?}", handed.outcome);
    let lines: Vec<&str> = handed.said.lines().collect();
    assert_eq!(lines.first(), Some(&"copying 2500000 bytes; leave the medium in"));
    assert_eq!(lines.last(), Some(&"version 2.0 is installed; starting it"));
    assert_eq!(fs::read(site.folder.join("update/bundle.raucb")).unwrap(), bytes);
    assert!(site.folder.join("update/trial").exists(), "the gateway judges it");
    let last = site.open("boot-1").last().unwrap();
    assert_eq!((last.by.as_str(), last.phase), ("a USB stick", UpdatePhase::Installed));
    lock(&site.machine).asked.clear();
    // It stays in.
    site.said(|firmware| (firmware.booted, firmware.version) = ("B".to_owned(), Some("2.0".to_owned())));
    let handed = site.hand(&bundle, "boot-2", false).await;
    assert_eq!(handed.said, "version 2.0 runs already; the medium can be taken out\n");
    assert!(matches!(handed.outcome, Ok(HandedOver::Done)));
    // What delivered before does not.
    site.run_with(config(0), "boot-2", false, true, |_, asked| asked.contains(r#""good":false"#)).await;
    site.said(|firmware| (firmware.booted, firmware.version) = ("A".to_owned(), Some("1.0".to_owned())));
    let handed = site.hand(&bundle, "boot-3", true).await;
    assert!(matches!(handed.outcome, Ok(HandedOver::Refused)));
    let told = "refused: version 2.0 was tried already and did not become good: these delivered before";
    assert!(handed.said.starts_with(told) && handed.said.contains("gate"), "{}", handed.said);
    assert!(!site.asked().contains("install_bundle"), "{}", site.asked());
    // Another one may come.
    let handed = site.hand(&site.bring(b"another", &[]), "boot-3", true).await;
    assert!(matches!(handed.outcome, Ok(HandedOver::Done)), "{}", handed.said);
}

#[tokio::test]
async fn what_a_stick_brings_in_vain_is_said_kept_for_everybody_and_not_copied_again() {
    if !may() {
        return;
    }
    let site = Site::new();
    lock(&site.machine).bundle = "0.9".to_owned();
    for boot in ["boot-1", "boot-2"] {
        let handed = site.hand(&site.bring(b"older", &[]), boot, true).await;
        assert!(matches!(handed.outcome, Ok(HandedOver::Refused)));
        assert!(handed.said.contains("refused: version 0.9 is not newer than 1.0"), "{}", handed.said);
        assert_eq!(handed.said.contains("copying"), boot == "boot-1", "{}", handed.said);
    }
    let last = site.open("boot-2").last().unwrap();
    assert_eq!((last.version.as_str(), last.phase), ("0.9", UpdatePhase::Refused));
    assert!(last.reason.unwrap().contains("a file downgrade beside the bundle asks for it"));
    lock(&site.machine).bundle = String::new();
    let handed = site.hand(&site.bring(b"not signed", &[]), "boot-2", true).await;
    assert!(handed.said.contains("refused: ") && handed.said.contains("no such bundle"), "{}", handed.said);
    let view = site.open("boot-2").view();
    assert_eq!((view.last.unwrap().version.as_str(), view.upload), ("", None));
    assert_eq!(site.asked(), "");
    // The one that runs, of which another bundle was made.
    lock(&site.machine).bundle = "1.0".to_owned();
    let handed = site.hand(&site.bring(b"same", &[]), "boot-2", true).await;
    assert!(handed.said.ends_with("version 1.0 runs already; the medium can be taken out\n"));
    // Whoever stands before it may ask for the older one.
    lock(&site.machine).bundle = "0.9".to_owned();
    let handed = site.hand(&site.bring(b"older", &["downgrade.txt"]), "boot-2", true).await;
    assert!(handed.said.ends_with("version 0.9 is installed; starting it\n"), "{}", handed.said);
    // One at a time.
    let handed = site.hand(&site.bring(b"third", &[]), "boot-2", true).await;
    assert!(handed.said.starts_with("refused: version 0.9 is under way"), "{}", handed.said);
}

#[tokio::test]
async fn a_copy_that_was_cut_off_goes_on_and_an_installation_that_was_is_begun_once_more() {
    if !may() {
        return;
    }
    let site = Site::new();
    let bytes = vec![7; 3 << 20];
    let bundle = site.bring(&bytes, &[]);
    let stick = stick::Stick::of(File::open(&bundle).unwrap(), false).unwrap();
    let updates = site.open("boot-1");
    let upload = stick.upload();
    assert_eq!(updates.own(&upload).unwrap(), 0);
    updates.append_own(&upload, 0, b"what is there is not read again").unwrap();
    let other = UploadWish { size: 1, label: String::new() };
    drop(updates);
    let handed = site.hand(&bundle, "boot-2", true).await;
    assert!(matches!(handed.outcome, Ok(HandedOver::Done)), "{}", handed.said);
    let copied = fs::read(site.folder.join("update/bundle.raucb")).unwrap();
    assert!(copied.starts_with(b"what is there is not read again\x07") && copied.len() == bytes.len());
    // The power goes while RAUC writes.
    let updates = site.open("boot-2");
    updates.edit(|book| book.last.as_mut().unwrap().phase = Phase::Installing).unwrap();
    drop(updates);
    site.said(|firmware| firmware.percent = 0);
    site.run("boot-3", true, true, ended(UpdatePhase::Refused)).await;
    let handed = site.hand(&bundle, "boot-3", true).await;
    assert!(handed.said.ends_with("version 2.0 is installed; starting it\n"), "{}", handed.said);
    // Whoever begins another one in between has the last word.
    let site = Site::new();
    let updates = site.open("boot-1");
    updates.own(&upload).unwrap();
    updates.begin_upload(other, "ann").unwrap();
    assert!(matches!(updates.append_own(&upload, 0, b"x"), Err(UpdateError::Replaced)));
}

#[test]
fn nothing_but_a_file_is_handed_over_and_only_to_a_gateway_that_answers() {
    let site = Site::new();
    let bundle = site.bring(b"x", &[]);
    let hand = |bundle: &Path| hand_over(&site.folder, bundle, Duration::ZERO, &mut Vec::new());
    assert!(matches!(hand(&bundle), Err(HandOverError::NoAnswer(_))));
    let link = bundle.with_file_name("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    assert!(matches!(hand(&link), Err(HandOverError::Io(_))));
    assert!(matches!(hand(&site.folder), Err(HandOverError::NoFile)));
    // A gateway that ends in the middle of it each time.
    fs::create_dir(site.folder.join("update")).unwrap();
    let listener = UnixListener::bind(site.folder.join("update").join(stick::SOCKET)).unwrap();
    let dying = std::thread::spawn(move || {
        for stream in listener.incoming().take(3).flatten() {
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            (&stream).write_all(b"\"beat\"\n").unwrap();
        }
    });
    assert!(matches!(hand(&bundle), Err(HandOverError::NoAnswer(_))));
    dying.join().unwrap();
    // One that is none, or would do something to the console.
    for (line, told) in [
        (&b"odd\n"[..], None),
        (&[b'x'; 10_000][..], None),
        (b"{\"refused\":\"\\u001b[2Jno\"}\n", Some("refused:  [2Jno\n")),
    ] {
        fs::remove_file(site.folder.join("update").join(stick::SOCKET)).unwrap();
        let listener = UnixListener::bind(site.folder.join("update").join(stick::SOCKET)).unwrap();
        let answering = std::thread::spawn(move || {
            for stream in listener.incoming().take(if told.is_some() { 1 } else { 3 }).flatten() {
                BufReader::new(&stream).read_line(&mut String::new()).ok();
                (&stream).write_all(line).ok();
                if told.is_none() && line.starts_with(b"odd") {
                    break;
                }
            }
        });
        let mut said = Vec::new();
        let outcome = hand_over(&site.folder, &bundle, Duration::ZERO, &mut said);
        assert_eq!(outcome.is_ok(), told.is_some(), "{outcome:?}");
        assert_eq!(String::from_utf8(said).unwrap(), told.unwrap_or_default());
        answering.join().unwrap();
    }
}
