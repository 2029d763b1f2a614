//! The machine's network: the gateway, its root helper and a real systemd-networkd, in a namespace of their own.

use crate::common::gateway::{Gateway, program};
use crate::common::process::{Process, find};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A machine with interfaces `eth0` and `eth1`, at whose other end `far1` gives addresses; `$1` is its folder, `$2` the
/// program. networkd waits for no udev where /sys cannot be written.
const MACHINE: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mount -t sysfs -o ro none /sys
mkdir -p /run/systemd/network /run/systemd/timesyncd.conf.d /run/systemd/netif/links /run/systemd/netif/leases \
    /run/systemd/netif/lldp /run/dbus /var/lib/iwd /var/lib/systemd/network
chown -R systemd-network /run/systemd/netif /var/lib/systemd/network
cat >/run/dbus/bus.conf <<'BUS'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_type="method_return"/>
<allow receive_type="error"/></policy></busconfig>
BUS
# The image's own: whatever is not set otherwise asks for an address.
printf '[Match]\nName=eth*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n' \
    >/run/systemd/network/80-wired.network
printf '[Match]\nName=far1\n\n[Network]\nAddress=10.77.0.1/24\nDHCPServer=yes\n\n[DHCPServer]\nEmitRouter=yes\n' \
    >/run/systemd/network/90-far.network
ip link set lo up
ip link add eth0 type veth peer name far0
ip link add eth1 type veth peer name far1
ip link set far0 up
# They end with this shell. No namespace of processes: who asks is told by his process, too, which is outside.
setpriv --pdeathsig KILL -- dbus-daemon --config-file=/run/dbus/bus.conf --nofork --nopidfile &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
setpriv --pdeathsig KILL -- /lib/systemd/systemd-networkd &
setpriv --pdeathsig KILL -- systemd-socket-activate --accept --inetd --listen="$1/helper.sock" "$2" system-helper --user nobody &
while [ ! -S "$1/helper.sock" ]; do sleep 0.1; done
chmod 0666 "$1/helper.sock"
echo ready
wait
"#;

struct Machine {
    process: Process,
    scratch: Arc<Scratch>,
}

impl Machine {
    /// None where this kernel or this user may not have one.
    fn start() -> Option<Machine> {
        let may =
            Command::new("unshare").args(["-nmu", "true"]).status().is_ok_and(|status| status.success());
        if !rustix::process::geteuid().is_root() || !may {
            println!("skipped: a network of our own with systemd-networkd needs root and namespaces");
            return None;
        }
        find("dbus-daemon");
        let scratch = Arc::new(Scratch::new());
        let folder = scratch.path().to_str().unwrap().to_owned();
        let args = ["-nmu", "sh", "-euc", MACHINE, "sh", &folder, &program()];
        let mut process = Process::start_with("unshare", &args, |command| {
            command
                .env_remove("NOTIFY_SOCKET")
                .env_remove("INVOCATION_ID")
                .env("SYSTEMD_LOG_TARGET", "console");
        });
        wait::until_true("the machine", secs(60), || {
            process.assert_running();
            process.output().lines().any(|line| line == "ready")
        });
        Some(Machine { process, scratch })
    }

    fn gateway(&self, config: Value) -> Gateway {
        Gateway::start_in(self.scratch.clone(), config, |command| {
            command.args(["--confirm-within", "8s", "--system-helper"]).arg(self.scratch.join("helper.sock"));
        })
    }

    /// The process inside, whose namespaces these are.
    fn inner(&self) -> String {
        // setpriv becomes unshare, and that the shell.
        self.process.pid().to_string()
    }

    fn run(&self, args: &[&str]) -> String {
        let inner = self.inner();
        let output =
            Command::new("nsenter").args(["-t", &inner, "-n", "-m", "-u", "--"]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// A folder of it, as it is seen from outside.
    fn folder(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.inner()).join("root").join(path)
    }

    fn waits_for(&self, what: &str, args: &[&str], fits: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < secs(40) {
            last = self.run(args);
            if fits(&last) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!(
            "{what}: {args:?} says {last}\n{}",
            self.run(&["networkctl", "--no-pager", "status", "--all"])
        );
    }

    fn has_address(&self, link: &str, address: &str, is_there: bool) {
        let what = format!("{address} on {link}: {is_there}");
        self.waits_for(&what, &["ip", "-4", "addr", "show", link], |said| said.contains(address) == is_there);
    }
}

fn put(gateway: &Gateway, network: &Value) -> (u16, Value) {
    let (mut config, tag) = gateway.config();
    config["network"] = network.clone();
    let answer = gateway.put_config(&config, Some(&tag));
    (answer.status, answer.json())
}

fn confirm(gateway: &Gateway) {
    wait::until_true("the confirmation to be taken", secs(20), || {
        gateway.request("POST", "/api/v1/config/confirm", &[], b"").status == 200
    });
}

fn site() -> Value {
    json!({
        "hostname": "gate-7",
        "links": {
            "eth0": {"dhcp": false, "addresses": ["192.168.77.2/24"], "gateway": "192.168.77.1"},
            "eth1": {},
        },
        "uplinks": ["eth0", "eth1"],
    })
}

#[test]
fn networkd_does_what_the_config_says_and_goes_back_when_nobody_confirms() {
    let Some(machine) = Machine::start() else { return };
    let gateway = machine.gateway(json!({}));
    machine.has_address("eth1", "10.77.0.", true);
    assert_eq!(gateway.get("/api/v1/network").json()["config"]["state"], "applied");

    let (status, said) = put(&gateway, &site());
    assert_eq!((status, &said["state"]), (202, &json!("awaiting_confirm")), "{said}");
    machine.has_address("eth0", "192.168.77.2/24", true);
    machine.waits_for("the order of uplinks", &["ip", "-4", "route", "show", "default"], |said| {
        let line = |dev: &str, metric: &str| {
            said.lines().any(|it| it.contains(dev) && it.contains(&format!("metric {metric}")))
        };
        line("dev eth0", "100") && line("dev eth1", "200")
    });

    let name = ["cat", "/proc/sys/kernel/hostname"];
    assert_eq!(machine.run(&name).trim(), "gate-7");

    // Nobody confirms.
    machine.has_address("eth0", "192.168.77.2/24", false);
    assert_ne!(machine.run(&name).trim(), "gate-7");
    wait::until_true("the way back", secs(30), || gateway.status()["config"]["phase"] == "confirmed");
    assert_eq!(gateway.config().0["network"]["links"], json!({}));
    assert!(gateway.status()["config"]["rolled_back"].is_object());

    // Somebody does.
    assert_eq!(put(&gateway, &site()).0, 202);
    confirm(&gateway);
    machine.has_address("eth0", "192.168.77.2/24", true);
    machine.has_address("eth1", "10.77.0.", true);

    // The preferred one loses its carrier: the next takes over; and the other way round.
    let route = ["ip", "-4", "route", "get", "8.8.8.8"];
    machine.waits_for("the first way out", &route, |said| said.contains("dev eth0"));
    machine.run(&["ip", "link", "set", "far0", "down"]);
    machine.waits_for("the next way out", &route, |said| said.contains("dev eth1"));
    machine.run(&["ip", "link", "set", "far0", "up"]);
    machine.waits_for("the first way out again", &route, |said| said.contains("dev eth0"));
}

#[test]
fn a_cut_in_the_middle_of_a_change_leaves_the_confirmed_network() {
    let Some(machine) = Machine::start() else { return };
    let mut gateway = machine.gateway(json!({"network": {"links": {"eth0": {
        "dhcp": false, "addresses": ["192.168.77.2/24"],
    }}}}));
    machine.has_address("eth0", "192.168.77.2/24", true);
    let wrong = json!({"links": {"eth0": {"dhcp": false, "addresses": ["172.16.9.9/24"]}}});
    assert_eq!(put(&gateway, &wrong).0, 202);
    machine.has_address("eth0", "172.16.9.9/24", true);
    gateway.process().kill();
    drop(gateway);
    let gateway = machine.gateway(json!({}));
    machine.has_address("eth0", "192.168.77.2/24", true);
    machine.has_address("eth0", "172.16.9.9/24", false);

    // What the helper cannot do is refused whole, and said.
    let (status, said) = put(&gateway, &json!({"links": {"eth0": {"addresses": ["10.0.0.0/24"]}}}));
    assert_eq!(status, 422, "{said}");
    assert_eq!(said["problems"][0]["path"], "network.links.eth0.addresses[0]");
    std::fs::remove_dir_all(machine.folder("var/lib/iwd")).unwrap();
    let mut wifi = json!({"links": {
        "eth0": {"dhcp": false, "addresses": ["192.168.77.2/24"]},
        "wlan0": {"wifi": {"ssid": "Yard & Gate", "psk": "CANARY-psk"}},
    }});
    let (status, said) = put(&gateway, &wifi);
    assert_eq!(status, 422, "{said}");
    assert!(said["problems"][0]["problem"].as_str().unwrap().contains("Wi-Fi needs iwd"), "{said}");
    machine.has_address("eth0", "192.168.77.2/24", true);

    // The secret is in root's file, and nowhere else.
    std::fs::create_dir(machine.folder("var/lib/iwd")).unwrap();
    assert_eq!(put(&gateway, &wifi).0, 202);
    confirm(&gateway);
    let file = machine.folder("var/lib/iwd").join("=5961726420262047617465.psk");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("Passphrase=CANARY-psk"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for path in
        ["/api/v1/config", "/api/v1/network", "/api/v1/status", "/api/v1/support-bundle", "/api/v1/logs"]
    {
        assert!(!gateway.get(path).text().contains("CANARY-psk"), "{path}");
    }
    // Sent back as it was read, it stays.
    wifi["links"]["wlan0"]["wifi"]["psk"] = json!({"set": true});
    wifi["uplinks"] = json!(["eth0"]);
    assert_eq!(put(&gateway, &wifi).0, 202);
    confirm(&gateway);
    assert!(std::fs::read_to_string(&file).unwrap().contains("Passphrase=CANARY-psk"));

    // Time servers stand at once; there is no timedated here, which is told and holds nothing up.
    let (mut config, tag) = gateway.config();
    config["time"] = json!({"ntp": ["10.77.0.1"], "zone": "Europe/Berlin"});
    assert_eq!(gateway.put_config(&config, Some(&tag)).status, 200);
    let servers = machine.folder("run/systemd/timesyncd.conf.d/60-fieldgate.conf");
    wait::until_true("time servers", secs(30), || {
        std::fs::read_to_string(&servers).is_ok_and(|text| text.contains("NTP=10.77.0.1"))
    });
    wait::until_true("a notice", secs(30), || {
        gateway.status()["notices"].to_string().contains("time_not_set")
    });
    assert_eq!(gateway.get("/api/v1/time").json()["config"]["state"], "failed");
}

#[test]
fn root_does_nothing_for_strangers() {
    let Some(machine) = Machine::start() else { return };
    let ask = "import socket, sys
talk = socket.socket(socket.AF_UNIX); talk.settimeout(20); talk.connect(sys.argv[1])
talk.sendall(b'{\"verb\":\"set_network\",\"network\":{\"hostname\":\"stolen\"}}\\n'); print(talk.recv(4096).decode())";
    let socket = machine.scratch.join("helper.sock");
    let said = |user: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", user, "--clear-groups", "--", "/usr/bin/python3", "-c", ask])
            .arg(&socket)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // `chmod` above lets everybody reach it: what holds is who asks.
    std::fs::set_permissions(machine.scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let stranger = said("1");
    assert!(stranger.contains("refused") && stranger.contains("may not ask"), "{stranger}");
    assert!(!machine.folder("run/fieldgate-helper").exists());
}
