use super::*;
use crate::clock::wall_clock;
use crate::machine::Slot;
use fieldgate_model::Config;
use fieldgate_model::config::Span;
use fieldgate_model::status::UpdatePhase;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod handed;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A machine with two slots, and root's helper on it: what RAUC would say.
#[derive(Default)]
struct Machine {
    firmware: Firmware,
    bundle: String,
    asked: Vec<String>,
}

struct Site {
    folder: PathBuf,
    machine: Arc<Mutex<Machine>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Site {
    fn new() -> Site {
        let name = format!("fg-update-{}-{}", std::process::id(), NUMBER.fetch_add(1, Atomic::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let slot = |name: &str, booted| Slot { name: name.to_owned(), booted, ..Slot::default() };
        let firmware = Firmware {
            compatible: "board".to_owned(),
            version: Some("1.0".to_owned()),
            booted: "A".to_owned(),
            operation: "idle".to_owned(),
            slots: vec![slot("A", true), slot("B", false)],
            ..Firmware::default()
        };
        let machine = Machine { firmware, bundle: "2.0".to_owned(), asked: Vec::new() };
        let site = Site { folder, machine: Arc::new(Mutex::new(machine)) };
        let listener = UnixListener::bind(site.folder.join("helper.sock")).unwrap();
        let machine = site.machine.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                // Who ended in the middle of it wants no answer.
                let Ok(wish) = serde_json::from_str::<Value>(&line) else { continue };
                let verb = wish["verb"].as_str().unwrap();
                let mut machine = lock(&machine);
                let said = match verb {
                    "show_firmware" => json!({"firmware": machine.firmware}),
                    "inspect_bundle" if machine.bundle.is_empty() => {
                        json!({"refused": "RAUC takes no such bundle"})
                    }
                    "inspect_bundle" => json!({"bundle": {"compatible": "board", "version": machine.bundle}}),
                    "install_bundle" => {
                        machine.firmware.operation = "installing".to_owned();
                        json!({"done": true})
                    }
                    "mark_slot" => {
                        let booted = machine.firmware.booted.clone();
                        machine.firmware.primary = Some(booted).filter(|_| wish["good"] == true);
                        json!({"done": true})
                    }
                    _ => json!({"done": true}),
                };
                if said["done"] == true {
                    machine.asked.push(line.trim().to_owned());
                }
                (&stream).write_all(format!("{said}\n").as_bytes()).ok();
            }
        });
        site
    }

    fn open(&self, boot: &str) -> Updates {
        let machine = Arc::new(Desk::new(self.folder.join("helper.sock")));
        Updates::open(&self.folder, machine, wall_clock(None), boot.to_owned()).unwrap()
    }

    fn said(&self, change: impl FnOnce(&mut Firmware)) {
        change(&mut lock(&self.machine).firmware);
    }

    fn asked(&self) -> String {
        lock(&self.machine).asked.join(" ")
    }

    /// Starts the gateway, as far as firmware is its concern, until `is_there`; then it ends, orderly or not.
    async fn run_with(
        &self,
        config: Config,
        boot: &str,
        live: bool,
        is_orderly: bool,
        is_there: impl Fn(&UpdateView, &str) -> bool,
    ) {
        let updates = self.open(boot);
        let cancel = CancellationToken::new();
        let (_keep, config) = watch::channel(Arc::new(config));
        let work = updates.clone().run(move || status(live), config, cancel.clone());
        let watched = async {
            for _ in 0..3_000 {
                if is_there(&updates.view(), &self.asked()) {
                    return;
                }
                updates.shared.wake.notify_one();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("it does not come: {:?}, asked {}", updates.view(), self.asked());
        };
        let mut work = Box::pin(work);
        tokio::select! {
            () = &mut work => panic!("the keeper ended"),
            () = watched => {}
        }
        if is_orderly {
            cancel.cancel();
            work.await;
        }
    }

    /// The same with everybody's config.
    async fn run(
        &self,
        boot: &str,
        live: bool,
        is_orderly: bool,
        is_there: impl Fn(&UpdateView, &str) -> bool,
    ) {
        let config = config(if is_orderly { 0 } else { 3_600 });
        self.run_with(config, boot, live, is_orderly, is_there).await;
    }

    async fn installed(&self) {
        let updates = self.open("boot-1");
        updates.begin_upload(UploadWish { size: 3, label: "x".to_owned() }, "ann").unwrap();
        assert!(updates.take_piece(0, b"abc").unwrap().complete);
        updates.install(false, Origin::Person, &status(true), "ann").await.unwrap();
        assert!(self.asked().contains("install_bundle"));
        self.said(|firmware| (firmware.percent, firmware.operation) = (100, "idle".to_owned()));
        drop(updates);
        self.run("boot-1", true, true, |view, asked| {
            view.last.as_ref().is_some_and(|last| last.phase == UpdatePhase::Installed)
                && asked.contains("restart_machine")
        })
        .await;
        lock(&self.machine).asked.clear();
    }
}

/// Judged at the first look, or after seconds.
fn config(within: u64) -> Config {
    let mut config =
        Config::from_value(json!({"mountpoints": {"gate": {"source": {"kind": "publish"}}}})).unwrap();
    (config.update.hold, config.update.within) = (Span::from_secs(0), Span::from_secs(within));
    config
}

fn status(live: bool) -> Status {
    let stream = live.then(Default::default);
    let gate = fieldgate_model::status::MountpointStatus { stream, ..Default::default() };
    Status { mountpoints: [("gate".to_owned(), gate)].into(), ..Status::default() }
}

fn ended(phase: UpdatePhase) -> impl Fn(&UpdateView, &str) -> bool {
    move |view, _| view.last.as_ref().is_some_and(|last| last.phase == phase)
}

#[test]
fn a_bundle_comes_in_pieces_and_its_sender_goes_on_where_he_was_cut_off() {
    let site = Site::new();
    let updates = site.open("boot-1");
    assert!(matches!(updates.take_piece(0, b"x"), Err(UpdateError::NoUpload)));
    for (size, label) in [(0, ""), (BUNDLE_MAX + 1, ""), (1, "a\nb"), (1, &*"x".repeat(129))] {
        let wish = UploadWish { size, label: label.to_owned() };
        assert!(matches!(updates.begin_upload(wish, "ann"), Err(UpdateError::Wrong)));
    }
    let wish = |size| UploadWish { size, label: "new.raucb".to_owned() };
    updates.begin_upload(wish(6), "ann").unwrap();
    assert_eq!(updates.take_piece(0, b"abc").unwrap().received, 3);
    drop(updates);
    // Also over a start of the gateway.
    let updates = site.open("boot-2");
    let upload = updates.view().upload.unwrap();
    assert_eq!((upload.received, upload.complete, upload.label.as_str()), (3, false, "new.raucb"));
    assert!(matches!(updates.take_piece(0, b"abc"), Err(UpdateError::Offset(3))));
    assert!(matches!(updates.take_piece(3, b"defg"), Err(UpdateError::TooMuch(6))));
    assert!(updates.take_piece(3, b"def").unwrap().complete);
    assert_eq!(fs::read(site.folder.join("update/bundle.raucb")).unwrap(), b"abcdef");
    updates.drop_upload().unwrap();
    assert_eq!(updates.view().upload, None);
    assert!(!site.folder.join("update/bundle.raucb").exists());
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_before_a_byte_is_sent() {
    let site = Site::new();
    let updates = site.open("boot-1");
    let there = rustix::fs::statvfs(&site.folder).unwrap();
    let free = there.f_bavail * there.f_frsize;
    let error = updates.has_room(free).unwrap_err();
    assert!(error.to_string().contains(&format!("{free} bytes are needed")), "{error}");
    assert!(updates.has_room(1).is_ok() || free < RESERVE);
}

#[tokio::test]
async fn what_is_not_newer_not_whole_or_not_believed_is_not_installed() {
    let site = Site::new();
    let updates = site.open("boot-1");
    let live = status(true);
    let install = |downgrade| updates.install(downgrade, Origin::Person, &live, "ann");
    assert!(matches!(install(false).await, Err(UpdateError::NoUpload)));
    updates.begin_upload(UploadWish { size: 2, label: String::new() }, "ann").unwrap();
    updates.take_piece(0, b"a").unwrap();
    assert!(matches!(install(false).await, Err(UpdateError::NotWhole { received: 1, size: 2 })));
    updates.take_piece(1, b"b").unwrap();
    for version in ["1.0", "0.9"] {
        lock(&site.machine).bundle = version.to_owned();
        assert!(matches!(install(false).await, Err(UpdateError::NotNewer { .. })), "{version}");
    }
    lock(&site.machine).bundle = "no version".to_owned();
    assert!(matches!(install(true).await, Err(UpdateError::OddVersion)));
    lock(&site.machine).bundle = String::new();
    let error = install(false).await.unwrap_err().to_string();
    assert!(error.contains("RAUC takes no such bundle"), "{error}");
    site.said(|firmware| firmware.compatible = "other".to_owned());
    lock(&site.machine).bundle = "2.0".to_owned();
    assert!(matches!(install(false).await, Err(UpdateError::OtherMachine { .. })));
    assert_eq!(site.asked(), "");
    site.said(|firmware| firmware.compatible = "board".to_owned());
    lock(&site.machine).bundle = "0.9".to_owned();
    install(true).await.unwrap();
    assert!(matches!(updates.drop_upload(), Err(UpdateError::UnderWay(_))));
    assert!(matches!(install(true).await, Err(UpdateError::UnderWay(_))));
    assert!(site.folder.join("update/trial").exists(), "the image leaves it to the gateway what is good");
}

#[tokio::test]
async fn new_firmware_is_kept_when_what_delivered_before_delivers_again() {
    let site = Site::new();
    site.installed().await;
    site.said(|firmware| (firmware.booted, firmware.version) = ("B".to_owned(), Some("2.0".to_owned())));
    // The power goes while it is judged; that costs it nothing.
    site.run("boot-2", false, false, ended(UpdatePhase::Trial)).await;
    site.run("boot-3", true, true, ended(UpdatePhase::Good)).await;
    assert!(site.asked().contains(r#"{"good":true,"verb":"mark_slot"}"#), "{}", site.asked());
    assert!(!site.folder.join("update/trial").exists());
    assert!(!site.folder.join("update/bundle.raucb").exists(), "its room is given back");
    let updates = site.open("boot-4");
    assert!(updates.notices().is_empty() && updates.view().upload.is_none());
}

#[tokio::test]
async fn firmware_in_which_something_does_not_deliver_is_left_and_its_reason_is_kept() {
    let site = Site::new();
    site.installed().await;
    site.said(|firmware| firmware.booted = "B".to_owned());
    site.run("boot-2", false, true, |view, asked| {
        view.missing == ["gate"] && asked.contains(r#""good":false"#) && asked.contains("restart_machine")
    })
    .await;
    site.said(|firmware| firmware.booted = "A".to_owned());
    site.run("boot-3", true, true, ended(UpdatePhase::Failed)).await;
    let updates = site.open("boot-4");
    let reason = updates.last().unwrap().reason.unwrap();
    assert!(reason.contains("did not within") && reason.ends_with(": gate"), "{reason}");
    let notice = &updates.notices()[0];
    assert!(notice.text.contains("firmware 2.0 was not kept, and 1.0 runs again"), "{}", notice.text);
    // And the next one may come.
    updates.begin_upload(UploadWish { size: 1, label: String::new() }, "ann").unwrap();
}

#[tokio::test]
async fn firmware_that_never_got_as_far_as_the_gateway_says_so() {
    let site = Site::new();
    site.installed().await;
    site.said(|firmware| firmware.primary = Some("B".to_owned()));
    let has_ended = ended(UpdatePhase::Failed);
    site.run("boot-5", true, true, |view, asked| {
        let over = has_ended(view, asked);
        let primary = || view.firmware.as_ref().and_then(|firmware| firmware.primary.clone());
        assert!(!over || primary().as_deref() == Some("A"), "told that it failed, and that it comes first");
        over
    })
    .await;
    assert!(site.asked().contains(r#"{"good":true,"verb":"mark_slot"}"#), "what runs comes first again");
    let reason = site.open("boot-6").last().unwrap().reason.unwrap();
    assert!(reason.contains("did not get as far as starting the gateway"), "{reason}");
}

#[tokio::test]
async fn a_gateway_that_ends_again_and_again_in_new_firmware_is_no_good() {
    let site = Site::new();
    site.installed().await;
    site.said(|firmware| firmware.booted = "B".to_owned());
    let updates = site.open("boot-2");
    updates
        .edit(|book| {
            let last = book.last.as_mut().unwrap();
            last.phase = Phase::Trial;
            // Cut off between one start and the next, each time before it was judged.
            (0..keeper::MAX_CRASHES).for_each(|_| last.started("boot-2"));
        })
        .unwrap();
    drop(updates);
    site.run("boot-2", true, false, |view, asked| {
        view.missing.is_empty() && asked.contains(r#""good":false"#)
    })
    .await;
    site.said(|firmware| firmware.booted = "A".to_owned());
    site.run("boot-3", true, true, ended(UpdatePhase::Failed)).await;
    let reason = site.open("boot-4").last().unwrap().reason.unwrap();
    assert_eq!(reason, "the gateway ended by itself 4 times in it");
}

#[tokio::test]
async fn an_installation_that_rauc_refuses_or_that_the_power_cut_off_changes_nothing() {
    for (boot, error, told) in
        [("boot-1", "signature verification failed", "signature"), ("boot-2", "", "cut off")]
    {
        let site = Site::new();
        let updates = site.open("boot-1");
        updates.begin_upload(UploadWish { size: 1, label: String::new() }, "ann").unwrap();
        updates.take_piece(0, b"a").unwrap();
        updates.install(false, Origin::Person, &status(true), "ann").await.unwrap();
        drop(updates);
        site.said(|firmware| {
            (firmware.last_error, firmware.operation) = (error.to_owned(), "idle".to_owned());
        });
        site.run(boot, true, true, ended(UpdatePhase::Refused)).await;
        let reason = site.open("boot-3").last().unwrap().reason.unwrap();
        assert!(reason.contains(told), "{reason}");
        assert!(!site.asked().contains("restart_machine"));
    }
}

/// A server of one file that answers ranges; what was asked for is counted. `cut` of its first answers end in the middle.
fn server(file: Vec<u8>, cut: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/new.raucb", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let ranges = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let Some(range) = head.iter().find_map(|line| line.strip_prefix("Range: bytes=")) else {
                continue;
            };
            let (from, to) = range.split_once('-').unwrap();
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            let to = to.min(file.len() - 1);
            let mut asked = lock(&ranges);
            asked.push(range.to_owned());
            let body = &file[from..=to];
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{to}/{}\r\nETag: \"a\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                file.len(),
                body.len()
            );
            stream.write_all(head.as_bytes()).ok();
            let end = if asked.len() <= cut { body.len() / 2 } else { body.len() };
            stream.write_all(&body[..end]).ok();
        }
    });
    (url, asked)
}

#[tokio::test]
async fn what_the_config_wants_is_fetched_in_ranges_over_a_cut_and_installed_once() {
    let site = Site::new();
    let file: Vec<u8> = (0..2_500_000_u32).map(|it| it as u8).collect();
    let (url, asked) = server(file, 1);
    let mut wanting = config(3_600);
    let wanted = WantedFirmware { version: "2.0".to_owned(), url, ca: None, downgrade: false };
    wanting.update.wanted = Some(wanted.clone());
    let installing = |view: &UpdateView, asked: &str| {
        asked.contains("install_bundle") && view.last.as_ref().is_some_and(|last| last.version == "2.0")
    };
    site.run_with(wanting.clone(), "boot-1", true, true, installing).await;
    let ranges = lock(&asked).clone();
    assert_eq!(ranges[ranges.len() - 3..], ["0-1048575", "1048576-2097151", "2097152-3145727"], "{ranges:?}");
    assert_eq!(fs::metadata(site.folder.join("update/bundle.raucb")).unwrap().len(), 2_500_000);
    // It is refused, and not fetched again.
    site.said(|firmware| (firmware.last_error, firmware.operation) = ("no".to_owned(), "idle".to_owned()));
    site.run_with(wanting.clone(), "boot-1", true, true, ended(UpdatePhase::Refused)).await;
    assert_eq!(lock(&asked).len(), ranges.len());
    // Nor after another bundle came in between.
    let updates = site.open("boot-1");
    updates.begin_upload(UploadWish { size: 1, label: String::new() }, "ann").unwrap();
    updates.take_piece(0, b"a").unwrap();
    updates.install(true, Origin::Person, &status(true), "ann").await.unwrap();
    drop(updates);
    site.said(|firmware| firmware.operation = "idle".to_owned());
    let by_ann = |view: &UpdateView, asked: &str| {
        ended(UpdatePhase::Refused)(view, asked) && view.last.as_ref().is_some_and(|last| last.by == "ann")
    };
    site.run_with(wanting.clone(), "boot-1", true, true, by_ann).await;
    assert_eq!(lock(&asked).len(), ranges.len());
    // An older one is not even fetched.
    wanting.update.wanted = Some(WantedFirmware { version: "0.5".to_owned(), ..wanted });
    let refused = |view: &UpdateView, _: &str| view.last.as_ref().is_some_and(|last| last.version == "0.5");
    site.run_with(wanting, "boot-1", true, true, refused).await;
    assert!(site.open("boot-2").last().unwrap().reason.unwrap().contains("not newer"));
    assert_eq!(lock(&asked).len(), ranges.len());
}
