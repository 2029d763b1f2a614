use super::super::{diff, validate};
use super::*;
use serde_json::{Value, json};

fn config(network: Value) -> Config {
    Config::from_value(json!({"network": network})).unwrap()
}

fn problems(network: Value) -> Vec<String> {
    validate(&config(network))
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.problem))
        .collect()
}

fn places(network: Value) -> Vec<String> {
    let of = |problem: &String| problem.split(": ").next().unwrap().replace("network.", "");
    problems(network).iter().map(of).collect()
}

fn site() -> Value {
    json!({
        "hostname": "gate-7",
        "links": {
            "eth0": {"dhcp": false, "addresses": ["192.168.1.5/24", "2001:db8::5/64"], "gateway": "192.168.1.1",
                     "dns": ["192.168.1.1"]},
            "eth1": {"addresses": ["10.0.0.1/24"]},
            "wlan0": {"wifi": {"ssid": "Yard & Gate", "psk": "CANARY-psk-1", "hidden": true}},
        },
        "uplinks": ["eth0", "wlan0"],
    })
}

#[test]
fn a_good_site_has_no_problems_and_its_order_is_its_metrics() {
    assert_eq!(problems(site()), [] as [&str; 0]);
    let network = config(site()).network;
    let metrics = ["eth0", "wlan0", "eth1"].map(|link| network.metric(link));
    assert_eq!(metrics, [Some(100), Some(200), None]);
    assert_eq!(config(json!({})), Config::default());
}

#[test]
fn addresses_that_cannot_work_are_told_with_their_place() {
    let link = |link: Value| places(json!({"links": {"eth0": link}, "uplinks": ["eth0"]}));
    assert_eq!(link(json!({"dhcp": false})), ["links.eth0.addresses"]);
    for wrong in ["0.0.0.0/0", "127.0.0.1/8", "224.0.0.1/4", "192.168.1.0/24", "192.168.1.255/24", "::1/128"]
    {
        assert_eq!(link(json!({"addresses": [wrong]})), ["links.eth0.addresses[0]"], "{wrong}");
    }
    for right in ["192.168.1.0/31", "192.168.1.1/32", "fd00::/64"] {
        assert_eq!(link(json!({"addresses": [right]})), [""; 0], "{right}");
    }
    let gateway = |gateway: &str| link(json!({"addresses": ["192.168.1.5/24"], "gateway": gateway}));
    for wrong in ["10.0.0.1", "192.168.1.5", "192.168.2.1", "fe80::1"] {
        assert_eq!(gateway(wrong), ["links.eth0.gateway"], "{wrong}");
    }
    assert_eq!(gateway("192.168.1.1"), [""; 0]);
    assert_eq!(link(json!({"gateway": "192.168.1.1"})), ["links.eth0.gateway"], "without an address of ours");
    let no_uplink = json!({"links": {"eth0": {"addresses": ["10.0.0.2/24"], "gateway": "10.0.0.1"}}});
    assert_eq!(places(no_uplink), ["links.eth0.gateway"]);
    assert_eq!(
        link(json!({"dns": ["0.0.0.0", "9.9.9.9", "ff02::1"]})),
        ["links.eth0.dns[0]", "links.eth0.dns[2]"]
    );
    let twice = json!({"links": {"a": {"addresses": ["10.0.0.2/24"]}, "b": {"addresses": ["10.0.0.2/8"]}}});
    assert_eq!(places(twice), ["links.b.addresses[0]"]);
    assert!(
        Config::from_value(json!({"network": {"links": {"eth0": {"addresses": ["10.0.0.2"]}}}})).is_err()
    );
}

#[test]
fn names_hold_nothing_that_means_something_to_others() {
    for wrong in
        ["", "lo", "all", ".", "..", "eth 0", "eth*", "a/b", "sixteen-letters-", "eth0\n[Match]", "-a", "é"]
    {
        assert_eq!(places(json!({"links": {wrong: {}}})).len(), 1, "{wrong:?}");
    }
    for wrong in ["Gate", "-a", "a-", "a.b", "a b", "a\n"] {
        assert_eq!(places(json!({"hostname": wrong})), ["hostname"], "{wrong:?}");
    }
    assert_eq!(
        places(json!({"links": {"eth0": {}}, "uplinks": ["eth0", "eth0", "eth1"]})),
        ["uplinks[1]", "uplinks[2]"]
    );
    let many: serde_json::Map<String, Value> =
        (0..17).map(|number| (format!("eth{number}"), json!({}))).collect();
    assert!(Config::from_value(json!({"network": {"links": many}})).is_err());
}

#[test]
fn wifi_is_bounded_and_its_password_is_never_shown() {
    let wifi = |wifi: Value| places(json!({"links": {"wlan0": {"wifi": wifi}}}));
    let (longest, key) = ("p".repeat(63), "aB09".repeat(16));
    for right in ["12345678", &longest, &key, " with spaces ~"] {
        assert_eq!(wifi(json!({"ssid": "yard", "psk": right})), [""; 0], "{right}");
    }
    let not_key = "g".repeat(64);
    for wrong in ["1234567", not_key.as_str(), "pässword1", "tab\tword1", "line\nword"] {
        let found = problems(json!({"links": {"wlan0": {"wifi": {"ssid": "yard", "psk": wrong}}}}));
        assert_eq!(found.len(), 1, "{wrong:?}");
        assert!(!found[0].contains(wrong), "{found:?}");
    }
    let long = "é".repeat(17);
    for wrong in [long.as_str(), "a\nb", "\u{7f}"] {
        assert_eq!(wifi(json!({"ssid": wrong})), ["links.wlan0.wifi.ssid"], "{wrong:?}");
    }
    let both =
        json!({"links": {"a": {"wifi": {"ssid": "x"}}, "b": {"wifi": {"ssid": "x", "psk": "12345678"}}}});
    assert_eq!(places(both), ["links.b.wifi.ssid"]);
    let shown = serde_json::to_string(&config(site())).unwrap();
    assert!(!shown.contains("CANARY") && !format!("{:?}", config(site())).contains("CANARY"), "{shown}");
}

#[test]
fn a_password_is_kept_for_the_same_network_alone() {
    let before = config(site());
    let mut again = Config::from_value(serde_json::to_value(&before).unwrap()).unwrap();
    assert!(again.keep_secrets(&before).is_empty());
    assert_eq!(again, before);
    assert_eq!(Config::from_value(before.stored().unwrap()).unwrap(), before);
    let mut moved = serde_json::to_value(&before).unwrap();
    moved["network"]["links"]["wlan0"]["wifi"]["ssid"] = json!("another");
    let problems = Config::from_value(moved).unwrap().keep_secrets(&before);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn times_settings_are_bounded() {
    let time = |time: Value| -> Vec<String> {
        let config = Config::from_value(json!({"time": time})).unwrap();
        validate(&config).into_iter().map(|problem| problem.path).collect()
    };
    assert_eq!(
        time(json!({"zone": "America/Argentina/Buenos_Aires", "ntp": ["ntp.example", "10.0.0.1", "::2"]})),
        [""; 0]
    );
    for wrong in ["../etc/shadow", "/etc/x", "a//b", "Europe/", "a b", "x\ny", "."] {
        assert_eq!(time(json!({"zone": wrong})), ["time.zone"], "{wrong:?}");
    }
    let wrong = json!({"ntp": ["", "a b", "x\ny", "ntp..example", "0.0.0.0", "good"]});
    let at: Vec<String> = (0..5).map(|index| format!("time.ntp[{index}]")).collect();
    assert_eq!(time(wrong), at);
}

#[test]
fn the_network_is_provisional_and_the_time_is_not() {
    let with = |value: Value| Config::from_value(value).unwrap();
    let changes = diff(&Config::default(), &config(site()));
    assert_eq!(changes.0.iter().map(|it| it.part.to_string()).collect::<Vec<_>>(), ["network"]);
    assert!(changes.is_provisional(), "also the first");
    assert_eq!(changes.scope(), super::super::Scope::All);
    let changes = diff(&Config::default(), &with(json!({"time": {"zone": "UTC"}})));
    assert_eq!((changes.0[0].part.to_string(), changes.is_provisional()), ("time".to_owned(), false));
}
