use super::*;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A machine in a folder of its own, which goes with it.
struct Machine {
    folder: PathBuf,
    places: Places,
    tools: Vec<Tool>,
    /// The next tool fails.
    fails: bool,
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

impl Machine {
    fn new() -> Machine {
        let name = format!("fg-machine-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        let at = |place: &str| folder.join(place);
        let places = Places {
            networkd: at("networkd"),
            timesyncd: at("timesyncd"),
            iwd: at("iwd"),
            interfaces: at("interfaces"),
            hostname: at("hostname"),
            zoneinfo: at("zoneinfo"),
            localtime: at("localtime"),
            passwd: at("passwd"),
            os_release: at("os-release"),
            bundle: at("bundle.raucb"),
            own: at("own"),
        };
        fs::create_dir_all(at("zoneinfo/Europe")).unwrap();
        fs::create_dir_all(&places.iwd).unwrap();
        fs::write(at("zoneinfo/Europe/Berlin"), "TZif").unwrap();
        std::os::unix::fs::symlink("../zoneinfo/Etc/UTC", &places.localtime).unwrap();
        fs::write(&places.hostname, "fieldgate\n").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        fs::write(&places.passwd, format!("root:x:0:0\nme:x:{uid}:1::/:/bin/sh\n")).unwrap();
        Machine { folder, places, tools: Vec::new(), fails: false }
    }

    fn ask(&mut self, text: &str) -> (Value, Result<(), HelperError>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(text.as_bytes()).unwrap();
        let Machine { places, tools, fails, .. } = self;
        let outcome = serve(&theirs, "me", places, &mut |tool| {
            tools.push(tool.clone());
            if std::mem::take(fails) {
                return Err(HelperError::Tool { tool: "networkctl", said: "no".to_owned() });
            }
            Ok(String::new())
        });
        drop(theirs);
        let mut said = String::new();
        // What is too long is not read to its end, which the kernel may tell as a broken connection.
        (&ours).read_to_string(&mut said).ok();
        (serde_json::from_str(&said).unwrap_or_default(), outcome)
    }

    fn network(&mut self, network: Value) -> Value {
        self.ask(&format!("{}\n", json!({"verb": "set_network", "network": network}))).0
    }

    fn time(&mut self, time: Value) -> Value {
        self.ask(&format!("{}\n", json!({"verb": "set_time", "time": time}))).0
    }

    fn files(&self, folder: &Path) -> Vec<String> {
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn done() -> Value {
    json!({"done": true})
}

#[test]
fn a_network_is_written_once_and_goes_again() {
    let mut machine = Machine::new();
    fs::create_dir_all(&machine.places.networkd).unwrap();
    let (foreign, wifi) =
        (machine.places.networkd.join("05-fieldgate-mine.network"), machine.places.iwd.join("home.psk"));
    fs::write(&foreign, "[Match]\nName=x\n").unwrap();
    fs::write(&wifi, "[Security]\nPassphrase=theirs-theirs\n").unwrap();
    let wanted = json!({
        "hostname": "gate-7",
        "links": {"eth0": {}, "wlan0": {"wifi": {"ssid": "yard", "psk": "12345678"}}}, "uplinks": ["eth0"],
    });
    assert_eq!(machine.network(wanted.clone()), done());
    assert_eq!(machine.tools, [Tool::Reload]);
    let names = ["05-fieldgate-eth0.network", "05-fieldgate-mine.network", "05-fieldgate-wlan0.network"];
    assert_eq!(machine.files(&machine.places.networkd), names);
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&machine.places.iwd.join("yard.psk")), 0o600);
    assert_eq!(mode(&machine.places.networkd.join(names[0])), 0o644);
    assert_eq!(fs::read_to_string(&machine.places.hostname).unwrap(), "gate-7");

    assert_eq!(machine.network(wanted), done());
    assert_eq!(machine.tools, [Tool::Reload], "nothing differs, so nothing is interrupted");

    assert_eq!(machine.network(json!({})), done());
    assert_eq!(machine.tools, [Tool::Reload, Tool::Reload]);
    assert_eq!(machine.files(&machine.places.networkd), [names[1]], "what is not ours stays");
    assert_eq!(machine.files(&machine.places.iwd), ["home.psk"]);
    assert_eq!(fs::read_to_string(&machine.places.hostname).unwrap(), "fieldgate", "as the image has it");
}

#[test]
fn a_new_wifi_password_makes_iwd_leave_and_a_file_that_iwd_wrote_goes_with_its_config() {
    let mut machine = Machine::new();
    let wanted = |psk: &str| json!({"links": {"wlan0": {"wifi": {"ssid": "yard", "psk": psk}}}});
    assert_eq!(machine.network(wanted("12345678")), done());
    let file = machine.places.iwd.join("yard.psk");
    // iwd has joined, and tells what it made of the password. What it writes has no comment.
    let text = fs::read_to_string(&file).unwrap();
    let joined = text.replace(MARK, "").replace("[Security]\n", "[Security]\nPreSharedKey=00ff\n");
    fs::write(&file, &joined).unwrap();
    assert_eq!(machine.network(wanted("12345678")), done());
    assert_eq!(fs::read_to_string(&file).unwrap(), joined, "it stays joined");

    let interface = machine.places.interfaces.join("wlan0");
    fs::create_dir_all(&interface).unwrap();
    fs::write(interface.join("operstate"), "up\n").unwrap();
    let (seen, watched) = (file.clone(), interface.join("operstate"));
    // iwd, which sees that its network is known no more.
    let iwd = std::thread::spawn(move || {
        while seen.exists() {
            std::thread::yield_now();
        }
        fs::write(watched, "down\n").unwrap();
    });
    assert_eq!(machine.network(wanted("another-one")), done());
    iwd.join().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("Passphrase=another-one\n") && !text.contains("PreSharedKey"), "{text}");

    fs::write(&file, text.replace(MARK, "")).unwrap();
    assert_eq!(machine.network(json!({})), done());
    assert!(!file.exists());
}

#[test]
fn networkd_is_told_again_if_it_was_not_the_last_time() {
    let mut machine = Machine::new();
    machine.fails = true;
    let wanted = json!({"links": {"eth0": {}}});
    assert_eq!(machine.network(wanted.clone()), json!({"refused": "networkctl: no"}));
    assert_eq!(machine.network(wanted), done());
    assert_eq!(machine.tools, [Tool::Reload, Tool::Reload]);
}

#[test]
fn time_is_set_and_goes_back() {
    let mut machine = Machine::new();
    assert_eq!(machine.time(json!({"zone": "Europe/Berlin", "ntp": ["10.0.0.1"]})), done());
    assert_eq!(machine.tools, [Tool::Zone("Europe/Berlin".to_owned())]);
    assert_eq!(machine.files(&machine.places.timesyncd), ["60-fieldgate.conf"]);
    fs::remove_file(&machine.places.localtime).unwrap();
    std::os::unix::fs::symlink("/usr/share/zoneinfo/Europe/Berlin", &machine.places.localtime).unwrap();
    fs::create_dir_all(machine.places.zoneinfo.join("Etc")).unwrap();
    fs::write(machine.places.zoneinfo.join("Etc/UTC"), "TZif").unwrap();
    assert_eq!(machine.time(json!({})), done());
    assert_eq!(machine.tools.last(), Some(&Tool::Zone("Etc/UTC".to_owned())));
    assert!(machine.files(&machine.places.timesyncd).is_empty());
    let said = machine.time(json!({"zone": "Europe/Atlantis"}));
    assert_eq!(said, json!({"refused": "this machine does not know the time zone Europe/Atlantis"}));
}

#[test]
fn what_the_gateway_would_not_ask_is_refused_and_changes_nothing() {
    let mut machine = Machine::new();
    let long = format!("{{\"verb\": \"{}\"}}\n", "x".repeat(MAX_REQUEST as usize));
    for odd in [
        "\n",
        "{}\n",
        "[]\n",
        "no line",
        long.as_str(),
        "{\"verb\":\"run\",\"command\":\"sh\"}\n",
        "{\"verb\":\"set_network\",\"network\":{},\"file\":\"/etc/passwd\"}\n",
    ] {
        let (said, outcome) = machine.ask(odd);
        let is_told = said["refused"].is_string() || odd == long;
        assert!(is_told && outcome.is_err(), "{said} to {}", &odd[..odd.len().min(60)]);
    }
    for wrong in [
        json!({"links": {"../../etc/x": {}}}),
        json!({"links": {"eth0\n[Match]\nName=*": {}}}),
        json!({"hostname": "a\nb"}),
        json!({"links": {"eth0": {"dhcp": false}}}),
        json!({"links": {"w": {"wifi": {"ssid": "a", "psk": "1234567"}}}}),
        json!({"links": {"w": {"wifi": {"ssid": "a", "psk": {"set": true}}}}}),
    ] {
        let said = machine.network(wrong.clone());
        assert!(said["refused"].as_str().is_some_and(|why| why.starts_with("network")), "{said} to {wrong}");
    }
    let said = machine.time(json!({"zone": "../../etc/shadow"}));
    assert!(said["refused"].as_str().is_some_and(|why| why.starts_with("time.zone")), "{said}");
    assert!(machine.tools.is_empty() && !machine.places.networkd.exists());
    assert_eq!(fs::read_to_string(&machine.places.hostname).unwrap(), "fieldgate\n");
}

#[test]
fn wifi_without_iwd_is_told_before_anything_is_written() {
    let mut machine = Machine::new();
    fs::remove_dir_all(&machine.places.iwd).unwrap();
    let said = machine.network(json!({"links": {"wlan0": {"wifi": {"ssid": "yard"}}}}));
    assert!(said["refused"].as_str().unwrap().contains("needs iwd"), "{said}");
    assert!(!machine.places.networkd.exists());
}

#[test]
fn a_wish_whose_asker_has_gone_is_none() {
    let machine = Machine::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let wish = json!({"verb": "set_network", "network": {"links": {"eth0": {}}}});
    (&ours).write_all(format!("{wish}\n").as_bytes()).unwrap();
    drop(ours);
    let outcome = serve(&theirs, "me", &machine.places, &mut |_| panic!("nothing is to be done"));
    assert!(matches!(outcome, Err(HelperError::Gone)), "{outcome:?}");
    assert!(!machine.places.networkd.exists());
}

#[test]
fn only_who_stands_in_the_list_may_ask() {
    let machine = Machine::new();
    assert_eq!(uid_of("root", &machine.places.passwd), Some(0));
    assert_eq!(uid_of("nobody", &machine.places.passwd), None);
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        println!(
            "skipped: who runs as root is never a stranger; the whole-program test asks as another user"
        );
        return;
    }
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let outcome = serve(&theirs, "somebody-else", &machine.places, &mut |_| Ok(String::new()));
    assert!(matches!(outcome, Err(HelperError::Stranger { .. })), "{outcome:?}");
}
