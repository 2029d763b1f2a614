//! Addresses to listen on.

use crate::config::{Config, Path, Problem};
use std::net::SocketAddr;
use std::path::Path as FilePath;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let rtmp = Path::root().field("rtmp");
    let http = Path::root().field("http");
    let admin = Path::root().field("admin").field("listen");
    let aggregator = Path::root().field("compat").field("aggregator");
    let coordinator = Path::root().field("compat").field("coordinator");
    let mut taken: Vec<(Path, SocketAddr)> = Vec::new();
    let lists = [
        (rtmp.field("listen"), config.rtmp.listen.as_slice()),
        (
            rtmp.field("tls").field("listen"),
            config.rtmp.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
        (Path::root().field("kmp").field("listen"), config.kmp.listen.as_slice()),
        (
            Path::root().field("kmp").field("tls").field("listen"),
            config.kmp.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
        (http.field("listen"), config.http.listen.as_slice()),
        (
            http.field("tls").field("listen"),
            config.http.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
        (admin.clone(), config.admin.listen.as_slice()),
        (
            Path::root().field("admin").field("tls").field("listen"),
            config.admin.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
        (
            Path::root().field("compat").field("kmp").field("api").field("listen"),
            config.compat.kmp.api.listen.as_slice(),
        ),
        (aggregator.field("listen"), config.compat.aggregator.listen.as_slice()),
        (aggregator.field("stat_listen"), config.compat.aggregator.stat_listen.as_slice()),
        (Path::root().field("compat").field("node").field("listen"), config.compat.node.listen.as_slice()),
        (
            Path::root().field("compat").field("node").field("tls").field("listen"),
            config.compat.node.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
        (coordinator.field("listen"), config.compat.coordinator.listen.as_slice()),
        (
            coordinator.field("tls").field("listen"),
            config.compat.coordinator.tls.as_ref().map_or(&[], |tls| tls.listen.as_slice()),
        ),
    ];
    for (list, addresses) in lists {
        for (index, address) in addresses.iter().enumerate() {
            let path = list.item(index);
            if let Some((other, _)) = taken.iter().find(|(_, taken)| collide(*taken, *address)) {
                problems.push(
                    Problem::new(&path, format!("is already taken by {other}")).got(address.to_string()),
                );
            }
            taken.push((path, *address));
        }
    }
    for (index, address) in config.admin.listen.iter().enumerate() {
        if !address.ip().to_canonical().is_loopback() {
            problems.push(
                Problem::new(
                    &admin.item(index),
                    "must be a loopback address: passwords do not go over a network in clear text",
                )
                .got(address.to_string())
                .remedy("use 127.0.0.1 or [::1] here, and admin.tls.listen for the network"),
            );
        }
    }
    if config.rtmp.max_connections_per_address > config.rtmp.max_connections {
        problems.push(
            Problem::new(&rtmp.field("max_connections_per_address"), "must be at most rtmp.max_connections")
                .got(config.rtmp.max_connections_per_address),
        );
    }
    if let Some(tls) = &config.admin.tls {
        let path = Path::root().field("admin").field("tls");
        match (&tls.cert, &tls.key) {
            (Some(_), None) => problems.push(Problem::new(&path.field("key"), "is missing beside cert")),
            (None, Some(_)) => problems.push(Problem::new(&path.field("cert"), "is missing beside key")),
            _ => {}
        }
        for (name, file) in [("cert", &tls.cert), ("key", &tls.key)] {
            problems.extend(file.as_ref().and_then(|file| check_file(&path.field(name), file)));
        }
        for (index, name) in tls.names.iter().enumerate() {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if name.is_empty() || name.len() > 253 || !name.bytes().all(is_plain) {
                let problem = Problem::new(&path.field("names").item(index), "must be a host's name");
                problems.push(
                    problem.got(name.as_str()).remedy("letters, digits, - and . such as gate-7.example.org"),
                );
            }
        }
    }
    if let Some(tls) = &config.rtmp.tls {
        for (name, file) in [("cert", &tls.cert), ("key", &tls.key)] {
            problems.extend(check_file(&rtmp.field("tls").field(name), file));
        }
    }
    let (one, all) = (config.http.max_connections_per_address, config.http.max_connections);
    if one > all {
        let path = http.field("max_connections_per_address");
        problems.push(Problem::new(&path, "must be at most http.max_connections").got(one));
    }
    if let Some(tls) = &config.http.tls {
        for (name, file) in [("cert", &tls.cert), ("key", &tls.key)] {
            problems.extend(check_file(&http.field("tls").field(name), file));
        }
    }
}

/// A file that the config names must not depend on where the service was started.
pub(in crate::config) fn check_file(path: &Path, file: &FilePath) -> Option<Problem> {
    (!file.is_absolute())
        .then(|| Problem::new(path, "must be an absolute path").got(file.display().to_string()))
}

/// Whether both cannot be bound at once. Port 0 never collides: the kernel chooses.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip()
        || (one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified()));
    one.port() != 0 && one.port() == other.port() && same_host
}
