//! The gateway's name in the local network, as another machine sees it: avahi, in a namespace at the other end of a cable.

use crate::common::gateway::program;
use crate::common::process::{Process, find};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use rustix::process::Signal;
use serde_json::json;
use std::process::Command;

/// A machine with the interface `eth0`, and at its other end a phone that speaks multicast DNS; `$1` is their folder.
const CABLE: &str = r#"
mount -t tmpfs none /run
mkdir -p /run/netns /run/dbus /run/avahi-daemon
cat >/run/dbus/bus.conf <<'BUS'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_type="method_return"/>
<allow receive_type="error"/></policy></busconfig>
BUS
printf '[server]\nhost-name=phone\nuse-ipv6=no\nallow-interfaces=far0\n[wide-area]\nenable-wide-area=no\n' >/run/avahi.conf
printf '[publish]\npublish-hinfo=no\npublish-workstation=no\n' >>/run/avahi.conf
ip link set lo up
ip netns add far
ip link add eth0 type veth peer name far0
ip link set far0 netns far
ip addr add 10.77.0.7/24 dev eth0
ip link set eth0 up
ip -n far link set lo up
ip -n far addr add 10.77.0.9/24 dev far0
ip -n far link set far0 up
setpriv --pdeathsig KILL -- dbus-daemon --config-file=/run/dbus/bus.conf --nofork --nopidfile &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
setpriv --pdeathsig KILL -- ip netns exec far avahi-daemon -f /run/avahi.conf --no-drop-root --no-chroot --no-rlimits &
echo ready
wait
"#;

struct Cable {
    process: Process,
    scratch: Scratch,
}

impl Cable {
    /// None where this kernel or this user may not have one.
    fn start() -> Option<Cable> {
        let may =
            Command::new("unshare").args(["-nmu", "true"]).status().is_ok_and(|status| status.success());
        if !rustix::process::geteuid().is_root() || !may {
            println!("skipped: a network of our own with another machine needs root and namespaces");
            return None;
        }
        for tool in ["dbus-daemon", "avahi-daemon", "avahi-resolve", "curl"] {
            find(tool);
        }
        let scratch = Scratch::new();
        let mut process = Process::start("unshare", &["-nmu", "sh", "-euc", CABLE, "sh"]);
        wait::until_true("the cable", secs(60), || {
            process.assert_running();
            process.output().lines().any(|line| line == "ready")
        });
        Some(Cable { process, scratch })
    }

    fn inside(&self, args: &[&str]) -> Vec<String> {
        let pid = self.process.pid().to_string();
        let enter = ["-t", &pid, "-n", "-m", "-u", "--"];
        enter.iter().chain(args).map(ToString::to_string).collect()
    }

    /// On the gateway's machine; whether it went well, and what was said.
    fn here(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new("nsenter").args(self.inside(args)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
    }

    /// On the phone.
    fn phone(&self, args: &[&str]) -> (bool, String) {
        self.here(&[&["ip", "netns", "exec", "far"], args].concat())
    }

    /// Asks the phone until it says what fits.
    fn phone_says(&self, what: &str, args: &[&str], fits: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < secs(90) {
            last = self.phone(args).1;
            if fits(&last) {
                return last;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("{what}: {args:?} says {last}\n{}", self.process.log());
    }

    fn gateway(&self) -> Process {
        let (state, config) = (self.scratch.join("state"), self.scratch.join("config.json"));
        let settings = json!({
            "rtmp": {"listen": []},
            "admin": {"listen": ["127.0.0.1:8080"], "tls": {"listen": ["0.0.0.0:8443"]}},
        });
        std::fs::write(&config, settings.to_string()).unwrap();
        let (state, config) = (state.to_str().unwrap(), config.to_str().unwrap());
        let program = program();
        let run = self.inside(&[&program, "run", "--state", state, "--config", config]);
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        let mut gateway = Process::start("nsenter", &run);
        wait::until_true("the gateway", secs(60), || {
            gateway.assert_running();
            gateway.output().contains("listening")
        });
        gateway
    }

    /// Where the gateway says that it is announced.
    fn announced(&self) -> Option<String> {
        let state = self.scratch.join("state");
        let (is_known, said) = self.here(&[&program(), "announced", "--state", state.to_str().unwrap()]);
        is_known.then(|| said.trim().to_owned())
    }

    fn name(&self, what: &str) -> String {
        let url = wait::until(what, secs(60), || self.announced());
        let name = url.strip_prefix("https://").and_then(|rest| rest.strip_suffix(":8443/"));
        name.unwrap_or_else(|| panic!("an address: {url}")).to_owned()
    }
}

#[test]
fn a_phone_finds_the_page_by_its_name_and_nobody_loses_his() {
    let Some(cable) = Cable::start() else { return };
    cable.phone_says("avahi", &["avahi-resolve", "-4", "-n", "phone.local"], |said| {
        said.contains("10.77.0.9")
    });
    let mut gateway = cable.gateway();
    let name = cable.name("the announcement");
    let label = name.strip_suffix(".local").unwrap().to_owned();
    assert!(label.starts_with("fieldgate-") && label.len() == "fieldgate-".len() + 4, "{name}");

    // By its name, by what it is, and back.
    let resolve = ["avahi-resolve", "-4", "-n", &name];
    cable.phone_says("the address", &resolve, |said| said.contains("10.77.0.7"));
    let browse = ["avahi-browse", "--resolve", "--parsable", "--terminate", "--no-db-lookup", "_https._tcp"];
    let page = format!("{label};_https._tcp;local;{name};10.77.0.7;8443;\"path=/\"");
    cable.phone_says("the page", &browse, |said| said.contains(&page));

    // The certificate holds this name, and the gateway answers to it.
    let certificate = cable.scratch.join("state/tls/admin.pem");
    let (url, to) = (format!("https://{name}:8443/healthz"), format!("{name}:8443:10.77.0.7"));
    let get = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &to, "--cacert"];
    let get = [&get[..], &[certificate.to_str().unwrap(), &url]].concat();
    assert_eq!(cable.phone(&get), (true, "200".to_owned()));

    // Somebody else wants that name: it is defended.
    assert!(cable.phone(&["avahi-set-host-name", &label]).0);
    wait::until_true("the phone to take another one", secs(90), || {
        cable.process.log().contains("Host name conflict")
    });
    cable.phone_says("still the gateway", &resolve, |said| said.contains("10.77.0.7"));
    assert_eq!(cable.name("the name"), name);

    // When it goes, it says so; whoever takes the name meanwhile keeps it.
    gateway.signal(Signal::TERM);
    assert!(gateway.end_within(secs(60)).success(), "{}", gateway.log());
    assert_eq!(cable.announced(), None);
    cable.phone_says("the page is gone", &browse, |said| !said.contains(&label));
    assert!(cable.phone(&["avahi-set-host-name", &label]).0);
    cable.phone_says("the name is the phone's", &resolve, |said| said.contains("10.77.0.9"));
    let _gateway = cable.gateway();
    let second = format!("{label}-2.local");
    assert_eq!(cable.name("the next name"), second);
    let resolve_second = ["avahi-resolve", "-4", "-n", &second];
    cable.phone_says("the next name", &resolve_second, |said| said.contains("10.77.0.7"));
    let (url, to) = (format!("https://{second}:8443/healthz"), format!("{second}:8443:10.77.0.7"));
    let get = ["curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &to, &url];
    assert_eq!(cable.phone(&get), (true, "200".to_owned()), "it answers to that one, too");

    // Off is off.
    let secret = std::fs::read_to_string(cable.scratch.join("state/access/local.token")).unwrap();
    let bearer = format!("Authorization: Bearer {secret}");
    let config = "http://127.0.0.1:8080/api/v1/config";
    let merge = "Content-Type: application/merge-patch+json";
    let off = r#"{"discovery": {"announce": false}}"#;
    let patch =
        ["curl", "-sSf", "-X", "PATCH", "-H", &bearer, "-H", "If-Match: *", "-H", merge, "-d", off, config];
    let (is_done, said) = cable.here(&patch);
    assert!(is_done, "{said}");
    cable.phone_says("silence", &browse, |said| !said.contains(&label));
    wait::until_true("nothing is announced", secs(60), || cable.announced().is_none());
}
