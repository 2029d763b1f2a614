//! What networkd, timesyncd and iwd read, from the config. Pure.

use fieldgate_model::config::{Link, MachineNetwork, MachineTime, Wifi, is_key};
use std::fmt::Write as _;

/// First line of every file of ours, by which it is known.
pub(super) const MARK: &str = "# Written by fieldgate from its config; changes here are lost.\n";
/// What our names for networkd begin with: before the image's own, as the first that fits an interface counts.
pub(super) const PREFIX: &str = "05-fieldgate-";
/// First line of our files for iwd, below [`MARK`]: iwd writes a file anew once it has joined, without its comments.
pub(super) const IWD_MARK: &str = "[Fieldgate]\n";
/// Our name for timesyncd.
pub(super) const TIMESYNCD: &str = "60-fieldgate.conf";

/// A file's name in its folder, and its text.
pub(super) type File = (String, String);

/// A `.network` file for each link.
pub(super) fn networkd(network: &MachineNetwork) -> Vec<File> {
    let of = |(name, link): (&String, &Link)| {
        (format!("{PREFIX}{name}.network"), network_file(name, link, network.metric(name)))
    };
    network.links.iter().map(of).collect()
}

fn network_file(name: &str, link: &Link, metric: Option<u32>) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let mut text = MARK.to_owned();
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a text takes whatever is written");
    line(format_args!("[Match]\nName={name}\n\n[Link]\nRequiredForOnline=no\n\n[Network]"));
    line(format_args!("DHCP={}", yes(link.dhcp)));
    line(format_args!("IPv6AcceptRA={}", yes(link.dhcp)));
    if link.wifi.is_some() {
        // Roaming from one station to the next loses the carrier for a moment.
        line(format_args!("IgnoreCarrierLoss=3s"));
    }
    link.addresses.iter().for_each(|address| line(format_args!("Address={address}")));
    link.dns.iter().for_each(|server| line(format_args!("DNS={server}")));
    if link.dhcp {
        let own_dns = yes(metric.is_some() && link.dns.is_empty());
        let (leads, metric) = (yes(metric.is_some()), metric.unwrap_or(u16::MAX.into()));
        // A machine id that is new at each boot must not bring a new address.
        line(format_args!("\n[DHCPv4]\nClientIdentifier=mac\nRouteMetric={metric}"));
        line(format_args!("UseGateway={leads}\nUseDNS={own_dns}\nUseNTP={leads}\nUseRoutes={leads}"));
        line(format_args!("\n[DHCPv6]\nDUIDType=link-layer\nUseDNS={own_dns}\nUseNTP={leads}"));
        line(format_args!("\n[IPv6AcceptRA]\nRouteMetric={metric}\nUseGateway={leads}\nUseDNS={own_dns}"));
    }
    if let (Some(gateway), Some(metric)) = (link.gateway, metric) {
        line(format_args!("\n[Route]\nGateway={gateway}\nMetric={metric}"));
    }
    text
}

/// What iwd knows of each Wi-Fi network, with the interface that joins it; secret.
pub(super) fn iwd(network: &MachineNetwork) -> Vec<(&str, File)> {
    let with_wifi = network.links.iter().filter_map(|(name, link)| Some((name, link.wifi.as_ref()?)));
    with_wifi.map(|(name, wifi)| (name.as_str(), iwd_file(wifi))).collect()
}

/// Whether a file of iwd's still says all that was written: iwd adds what it has made of the password.
pub(super) fn iwd_says(there: &str, wanted: &str) -> bool {
    let is_setting = |line: &&str| !line.is_empty() && !line.starts_with('#');
    wanted.lines().filter(is_setting).all(|wanted| there.lines().any(|line| line == wanted))
}

fn iwd_file(wifi: &Wifi) -> File {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'-');
    // Source: iwd.network(5), "NAMING".
    let name = if wifi.ssid.bytes().all(is_plain) {
        wifi.ssid.clone()
    } else {
        wifi.ssid.bytes().fold("=".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    let mut text =
        format!("{MARK}{IWD_MARK}FromConfig=true\n\n[Settings]\nAutoConnect=true\nHidden={}\n", wifi.hidden);
    let Some(psk) = &wifi.psk else { return (format!("{name}.open"), text) };
    let psk = psk.reveal();
    if is_key(psk) {
        text += &format!("\n[Security]\nPreSharedKey={}\n", psk.to_ascii_lowercase());
    } else {
        text += &format!("\n[Security]\nPassphrase={}\n", escaped(psk));
    }
    (format!("{name}.psk"), text)
}

/// As iwd's settings want a text: spaces at the ends are lost otherwise.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\");
    let rest = text.trim_start_matches(' ');
    let inner = rest.trim_end_matches(' ');
    "\\s".repeat(text.len() - rest.len()) + inner + &"\\s".repeat(rest.len() - inner.len())
}

/// What timesyncd reads beside its own; none if it shall do as the image says.
pub(super) fn timesyncd(time: &MachineTime) -> Option<String> {
    (!time.ntp.is_empty()).then(|| format!("{MARK}[Time]\nNTP={}\n", time.ntp.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn network(value: serde_json::Value) -> MachineNetwork {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_order_of_uplinks_is_that_of_their_metrics_and_others_lead_nowhere() {
        let network = network(json!({
            "links": {
                "eth0": {"dhcp": false, "addresses": ["192.168.1.5/24"], "gateway": "192.168.1.1", "dns": ["9.9.9.9"]},
                "eth1": {},
                "wlan0": {"wifi": {"ssid": "yard"}},
            },
            "uplinks": ["wlan0", "eth0"],
        }));
        let files = networkd(&network);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["05-fieldgate-eth0.network", "05-fieldgate-eth1.network", "05-fieldgate-wlan0.network"]
        );
        let of = |index: usize| files[index].1.as_str();
        for wanted in [
            "Name=eth0\n",
            "DHCP=no\n",
            "Address=192.168.1.5/24\n",
            "DNS=9.9.9.9\n",
            "Gateway=192.168.1.1\nMetric=200\n",
        ] {
            assert!(of(0).contains(wanted), "{wanted} in {}", of(0));
        }
        assert!(of(1).contains("UseGateway=no\n") && of(1).contains("UseDNS=no\n"), "{}", of(1));
        assert!(of(2).contains("RouteMetric=100\nUseGateway=yes\nUseDNS=yes\n"), "{}", of(2));
    }

    #[test]
    fn wifi_goes_to_iwd_in_its_own_writing_and_nowhere_else() {
        let one = |ssid: &str, psk: Option<&str>| {
            let network = network(json!({"links": {"wlan0": {"wifi": {"ssid": ssid, "psk": psk}}}}));
            if let Some(psk) = psk {
                assert!(networkd(&network).iter().all(|(_, text)| !text.contains(psk)));
            }
            iwd(&network).remove(0).1
        };
        assert_eq!(one("Yard 7", None).0, "Yard 7.open");
        assert_eq!(one("../x", Some("12345678")).0, "=2e2e2f78.psk");
        let text = |psk| one("yard", Some(psk)).1;
        assert!(text(r"pass\word").contains("Passphrase=pass\\\\word\n"));
        assert!(text("  two spaces ").contains("Passphrase=\\s\\stwo spaces\\s\n"));
        assert!(text("        ").contains("Passphrase=\\s\\s\\s\\s\\s\\s\\s\\s\n"));
        assert!(text(&"AB".repeat(32)).contains(&format!("PreSharedKey={}\n", "ab".repeat(32))));
    }

    #[test]
    fn what_iwd_adds_to_its_file_changes_nothing_and_another_password_does() {
        let file = |psk: &str| {
            let network = network(json!({"links": {"wlan0": {"wifi": {"ssid": "yard", "psk": psk}}}}));
            iwd(&network).remove(0).1.1
        };
        let wanted = file("12345678");
        // As iwd 2.3 writes it after it has joined.
        let joined = wanted.replace(MARK, "").replace("[Security]\n", "[Security]\nPreSharedKey=00ff\n");
        assert!(joined.starts_with(IWD_MARK), "{joined}");
        assert!(iwd_says(&wanted, &wanted) && iwd_says(&joined, &wanted));
        assert!(!iwd_says(&joined, &file("12345679")) && !iwd_says(&joined, &file(&"AB".repeat(32))));
    }

    #[test]
    fn without_time_servers_the_images_own_count() {
        assert_eq!(timesyncd(&MachineTime::default()), None);
        let time = MachineTime { zone: None, ntp: vec!["ntp.example".to_owned(), "10.0.0.1".to_owned()] };
        assert!(timesyncd(&time).unwrap().ends_with("[Time]\nNTP=ntp.example 10.0.0.1\n"));
    }
}
