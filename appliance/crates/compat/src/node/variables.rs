//! The old node's environment variables.

use super::Role;
use crate::env::Variables;
use fieldgate_model::Config;
use fieldgate_model::config::{MeshNode, MeshNodeTls, NodeRole, Secret, Span, validate};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Any of these says that there was a node.
const SIGNS: [&str; 3] = ["MASTER_SERVER", "MASTER_KEY", "DEF_MODE"];
/// They have no meaning here.
const IGNORED: [(&str, &str); 5] = [
    ("NGINX_CONF", "there is no nginx"),
    ("NGINX_CONF_PARSED", "there is no nginx"),
    ("NGINX_BIN", "there is no nginx"),
    ("CORE_URL", "CORE_HOST and CORE_PORT say it"),
    ("SERVER_NAME", "it was cosmetic"),
];

/// Takes what a node was started with. Nothing is turned on where nothing of it is there.
pub fn take_variables(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    if !SIGNS.iter().any(|sign| variables.get(sign).is_some()) {
        return;
    }
    let before = config.clone();
    let mut told = Vec::new();
    take(variables, config, &mut told);
    // What is wrong in a variable is wrong in the config, too: its own words are used.
    if let Some(problem) = validate(config).into_iter().next()
        && validate(&before).is_empty()
    {
        *config = before;
        told.push(format!("the mesh node's variables are left out: {problem}"));
    }
    notes.extend(told);
}

fn take(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    for (name, why) in IGNORED {
        if variables.take(name).is_some() {
            notes.push(format!("{name}: left out: {why}"));
        }
    }
    let node = &mut config.compat.node;
    let is_true = |text: &str| text.eq_ignore_ascii_case("true");
    let port = |variables: &mut Variables, name: &str, notes: &mut Vec<String>| {
        let text = variables.take(name)?;
        let port = text.parse().ok().filter(|port| *port != 0);
        if port.is_none() {
            notes.push(format!("{name}: {text:?} is no port; left out"));
        }
        port
    };
    let is_test = variables.take("TEST_MODE").is_some_and(|text| is_true(&text));
    let master_port: Option<u16> = port(variables, "MASTER_PORT", notes);
    let server = variables.take("MASTER_SERVER").map(|server| with_port(&server, master_port));
    node.master_key = variables.take("MASTER_KEY").map(Secret::new).or(node.master_key.take());
    node.master = match (is_test, server) {
        (true, Some(server)) => {
            notes.push(format!(
                "TEST_MODE: no master is called; set compat.node.master to {server} to join it"
            ));
            None
        }
        (_, server) => server.or(node.master.take()).filter(|_| !is_test),
    };
    node.enabled = node.master.is_none() || node.master_key.is_some();
    if !node.enabled {
        notes
            .push("MASTER_KEY is missing: compat.node is off until compat.node.master_key is set".to_owned());
        node.master = None;
    }
    let endpoints = [
        ("ANNOUNCE_ENDPOINT", &mut node.announce_endpoint),
        ("HEARTBEAT_ENDPOINT", &mut node.heartbeat_endpoint),
        ("STREAMS_ENDPOINT", &mut node.streams_endpoint),
        ("AUTH_ENDPOINT", &mut node.auth_endpoint),
        ("ROUTE_ENDPOINT", &mut node.route_endpoint),
        ("CERT_ENDPOINT", &mut node.cert_endpoint),
    ];
    for (name, endpoint) in endpoints {
        *endpoint = variables.take(name).unwrap_or_else(|| endpoint.clone());
    }
    for (name, span) in [
        ("ANNOUNCE_RETRY_TIME", &mut node.announce_retry),
        ("HEARTBEAT_RETRY_TIME", &mut node.heartbeat_retry),
    ] {
        let Some(text) = variables.take(name) else { continue };
        match text.parse::<u64>().ok().filter(|seconds| (1..=3600).contains(seconds)) {
            Some(seconds) => *span = Span::from_secs(seconds),
            None => notes.push(format!("{name}: {text:?} is no number of seconds from 1 to 3600; left out")),
        }
    }
    if let Some(mode) = variables.take("DEF_MODE") {
        match Role::parse(&mode) {
            Some(role) => node.mode = role_of(role),
            None => notes.push(format!("DEF_MODE: {mode:?} is no role; it stays {:?}", node.mode)),
        }
    }
    if let Some(local) = variables.take("LOCAL_ONLY") {
        node.local_only = is_true(&local);
    }
    let core_host = variables.take("CORE_HOST").and_then(|host| host.parse::<IpAddr>().ok());
    let core = port(variables, "CORE_PORT", notes);
    let http = port(variables, "NGINX_HTTP_PORT", notes);
    let core = core.map(|port| SocketAddr::new(core_host.unwrap_or(Ipv4Addr::LOCALHOST.into()), port));
    // The old node spoke TLS unless it was told not to.
    let is_tls = variables.take("HTTPS").is_none_or(|text| is_true(&text));
    listen(node, core, http, is_tls);
    if node.tls.as_ref().is_some_and(|tls| tls.cert.is_none()) && !node.cert_from_master {
        let text = "NGINX_HTTP_PORT: the gateway makes a certificate by itself; name yours in compat.node.tls, or set \
                    compat.node.cert_from_master";
        notes.push(text.to_owned());
    }
    let old = port(variables, "NGINX_PORT", notes);
    let rtmp: Option<u16> = port(variables, "NGINX_RTMP_PORT", notes).or(old);
    if let Some(port) = rtmp
        && !config.rtmp.listen.iter().any(|address| address.port() == port)
    {
        config.rtmp.listen = vec![SocketAddr::from(([0, 0, 0, 0], port))];
    }
    if config.http.listen.is_empty() && config.http.tls.is_none() {
        notes.push("http.listen is empty: viewers of a relay need it for HLS and DASH".to_owned());
    }
}

fn listen(node: &mut MeshNode, core: Option<SocketAddr>, http: Option<u16>, is_tls: bool) {
    let public = http.map(|port| SocketAddr::from(([0, 0, 0, 0], port)));
    node.http_port = http.unwrap_or(node.http_port);
    if let Some(address) = public.filter(|_| is_tls) {
        let tls =
            node.tls.get_or_insert_with(|| MeshNodeTls { listen: Vec::new(), ..MeshNodeTls::on(address) });
        if !tls.listen.contains(&address) {
            tls.listen.push(address);
        }
    }
    for address in [core, public.filter(|_| !is_tls)].into_iter().flatten() {
        if !node.listen.contains(&address) {
            node.listen.push(address);
        }
    }
}

/// The port counts only where the address has none and it is not the scheme's own.
fn with_port(server: &str, port: Option<u16>) -> String {
    let server = server.trim_end_matches('/');
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let default = if server.starts_with("http://") { 80 } else { 443 };
    match port.filter(|port| *port != default && !has_port && !host.contains('/')) {
        Some(port) => format!("{server}:{port}"),
        None => server.to_owned(),
    }
}

fn role_of(role: Role) -> NodeRole {
    match role {
        Role::Ingest => NodeRole::Ingest,
        Role::RootRelay => NodeRole::RootRelay,
        Role::Relay => NodeRole::Relay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::import;

    fn imported(text: &str) -> (Config, Vec<String>) {
        let imported = import(Variables::parse(text).unwrap(), Config::default());
        assert_eq!(validate(&imported.config), []);
        (imported.config, imported.notes)
    }

    #[test]
    fn an_old_nodes_variables_make_a_node() {
        let (config, notes) = imported(
            "MASTER_SERVER = https://master.example\nMASTER_PORT=8443\nMASTER_KEY=k\nAUTH_ENDPOINT=/authenticate\n\
             ANNOUNCE_RETRY_TIME=7\nNGINX_RTMP_PORT=1936\nNGINX_HTTP_PORT=7511\nCORE_PORT=7500\nDEF_MODE=root_relay\n\
             TEST_MODE=False\nLOCAL_ONLY=False\nNGINX_BIN=/usr/bin/nginx\nHTTPS=True\n\
             CERT_ENDPOINT=/certificate\n",
        );
        let node = &config.compat.node;
        assert!(node.enabled && !node.local_only);
        assert_eq!(node.master.as_deref(), Some("https://master.example:8443"));
        assert_eq!(node.master_key.as_ref().map(Secret::reveal), Some("k"));
        assert_eq!((node.auth_endpoint.as_str(), node.announce_retry), ("/authenticate", Span::from_secs(7)));
        assert_eq!((node.mode, node.http_port), (NodeRole::RootRelay, 7511));
        let listen: Vec<String> = node.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:7500"]);
        let tls = node.tls.as_ref().map(|tls| tls.listen.clone());
        assert_eq!(tls, Some(vec!["0.0.0.0:7511".parse().unwrap()]));
        assert_eq!(node.cert_endpoint, "/certificate");
        assert!(notes.iter().any(|note| note.contains("compat.node.cert_from_master")), "{notes:?}");
        assert_eq!(config.rtmp.listen, ["0.0.0.0:1936".parse().unwrap()]);
        assert!(notes.iter().any(|note| note.starts_with("NGINX_BIN")), "{notes:?}");
    }

    #[test]
    fn a_port_without_tls_stays_one() {
        let (config, _) = imported("MASTER_KEY=k\nDEF_MODE=relay\nNGINX_HTTP_PORT=7511\nHTTPS=False\n");
        let node = &config.compat.node;
        assert_eq!((node.listen.as_slice(), &node.tls), (&["0.0.0.0:7511".parse().unwrap()][..], &None));
    }

    #[test]
    fn check_23_test_mode_names_no_master() {
        let (config, notes) =
            imported("MASTER_SERVER=https://m.example\nMASTER_KEY=k\nTEST_MODE=TRUE\nDEF_MODE=relay\n");
        let node = &config.compat.node;
        assert!(node.enabled && node.master.is_none() && node.mode == NodeRole::Relay);
        assert!(notes.iter().any(|note| note.starts_with("TEST_MODE")), "{notes:?}");
    }

    #[test]
    fn what_makes_no_sense_is_told_and_left_out() {
        let (config, notes) = imported("MASTER_SERVER=https://m.example\n");
        assert!(
            !config.compat.node.enabled && notes.iter().any(|note| note.contains("MASTER_KEY is missing"))
        );
        for bad in ["MASTER_SERVER=ftp://m\nMASTER_KEY=k\n", "MASTER_KEY=k\nAUTH_ENDPOINT=auth\n"] {
            let (config, notes) = imported(bad);
            assert_eq!(config, Config::default(), "{bad}");
            assert!(notes.iter().any(|note| note.contains("left out")), "{notes:?}");
        }
        let (_, notes) = imported("MASTER_KEY=k\nDEF_MODE=boss\nCORE_PORT=x\nANNOUNCE_RETRY_TIME=0\n");
        for name in ["DEF_MODE", "CORE_PORT", "ANNOUNCE_RETRY_TIME"] {
            assert!(notes.iter().any(|note| note.starts_with(name)), "{notes:?}");
        }
        assert_eq!(imported("TEST_MODE=True\n").0, Config::default(), "another program's variable");
    }
}
