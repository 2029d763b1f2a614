use super::*;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

/// The environment belongs to a whole process, so the one under test is a child: this same test binary.
const CHILD: &str = "FIELDGATE_TEST_HEALTH_CHILD";

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What the child does: a loop that beats until it wedges, under a watchdog.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_with_a_loop_that_wedges() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (notifier, thread) = Notifier::start().unwrap();
    let pulses = Pulses::default();
    rt().block_on(async {
        let steady = pulses.watch("steering", Duration::from_secs(60));
        let pulse = pulses.watch("rtmp accept", Duration::from_millis(300));
        let watch =
            Watch::new(pulses.clone(), notifier.clone(), watchdog_from_env(), || "1 of 1 live".to_owned());
        let cancel = CancellationToken::new();
        notifier.ready();
        let beating = async {
            for _ in 0..10 {
                pulse.beat();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Wedged: the pulse exists and beats no more.
            tokio::time::sleep(Duration::from_millis(1200)).await;
            steady.beat();
            notifier.stopping();
            cancel.cancel();
        };
        tokio::join!(watch.run(cancel.clone()), beating);
    });
    drop(notifier);
    thread.join().unwrap();
}

#[test]
fn a_wedged_loop_stops_the_pings_and_is_named() {
    let folder = std::env::temp_dir().join(format!("fieldgate-notify-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "health::tests::child_with_a_loop_that_wedges", "--ignored"])
        .env(CHILD, "1")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .env_remove("WATCHDOG_PID")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    let mut buf = [0_u8; 512];
    while told.last().map(String::as_str) != Some("STOPPING=1") {
        let len = socket.recv(&mut buf).expect("the child tells that it stops");
        told.push(String::from_utf8(buf[..len].to_vec()).unwrap().trim_end().to_owned());
    }
    assert!(child.wait().unwrap().success());
    std::fs::remove_dir_all(&folder).unwrap();

    assert_eq!(told[0], "READY=1");
    assert_eq!(told.iter().filter(|line| *line == "STATUS=1 of 1 live").count(), 1, "told once: {told:?}");
    let pings = told.iter().filter(|line| *line == "WATCHDOG=1").count();
    // 10 beats in 0.5 s, stale 0.3 s later: eight or nine rounds of 0.1 s; with the 1.2 s of being wedged it would be 17.
    assert!((3..=12).contains(&pings), "{pings} pings: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn pings_come_every_third_of_the_watchdog_and_only_while_all_loops_beat() {
    let (queue, messages) = sync_channel(64);
    let pulses = Pulses::default();
    let watch =
        Watch::new(pulses.clone(), Notifier { queue }, Some(Duration::from_secs(30)), || "fine".to_owned());
    let cancel = CancellationToken::new();
    let pulse = pulses.watch("steward", Duration::from_secs(15));
    let story = async {
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert_eq!(
            messages.try_iter().filter(|message| *message == Message::Ping).count(),
            2,
            "at 0 and 10 s"
        );
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(
            messages.try_iter().filter(|message| *message == Message::Ping).count(),
            0,
            "stale since 15 s"
        );
        pulse.beat();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(messages.try_iter().filter(|message| *message == Message::Ping).count(), 1, "alive again");
        drop(pulse);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            messages.try_iter().filter(|message| *message == Message::Ping).count(),
            6,
            "a loop that ended in order is watched no more"
        );
        cancel.cancel();
    };
    tokio::join!(watch.run(cancel.clone()), story);
}

#[test]
fn a_status_line_is_one_line() {
    let (queue, messages) = sync_channel(1);
    Notifier { queue }.status("one\nREADY=1\ttwo");
    assert_eq!(messages.try_recv(), Ok(Message::Status("oneREADY=1two".to_owned())));
}

#[test]
fn a_systemd_that_does_not_read_stops_nothing() {
    let (queue, messages) = sync_channel(1);
    let notifier = Notifier { queue };
    for _ in 0..100 {
        notifier.ping();
    }
    assert_eq!(messages.try_iter().count(), 1);
}

#[test]
fn the_status_line_counts_streams_and_pushes() {
    use fieldgate_model::status::{MountpointStatus, Notice, PushStatus, StreamStatus};
    let mut live = MountpointStatus { stream: Some(StreamStatus::default()), ..MountpointStatus::default() };
    let mut push = PushStatus { enabled: true, ..PushStatus::default() };
    live.pushes.insert("waits".to_owned(), push.clone());
    push.activity.state = State::Running;
    live.pushes.insert("sends".to_owned(), push);
    live.pushes.insert("off".to_owned(), PushStatus::default());
    let mut status = Status::default();
    status.mountpoints.insert("yard".to_owned(), live);
    status.mountpoints.insert("gate".to_owned(), MountpointStatus::default());
    status.mountpoints.insert("s*".to_owned(), MountpointStatus::default());
    assert_eq!(status_line(&status), "1 of 2 mountpoints live, 1 of 2 pushes delivering");
    status.notices.push(Notice { code: "config_unreadable".to_owned(), text: String::new() });
    assert!(status_line(&status).ends_with("delivering, look at: config_unreadable"));
}
