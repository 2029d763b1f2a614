//! Streams that would feed themselves through our own RTMP or KMP listener.

use crate::config::{Config, Path, Problem, Push, SecretUrl, Source, UrlParts};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A stream of one mountpoint becomes that of another.
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    /// The setting that says so.
    path: Path,
    url: &'a SecretUrl,
    is_push: bool,
    by_kmp: bool,
}

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let edges = edges(config);
    for edge in &edges {
        let target = config.mountpoints.get(edge.to).map(|mountpoint| &mountpoint.source);
        if reaches(&edges, edge.to, edge.from) {
            let problem =
                Problem::new(&edge.path, format!("would feed mountpoint {} with itself", edge.from));
            problems.push(problem.got(edge.url.redacted()));
        } else if let Some(source) =
            target.filter(|source| edge.is_push && !edge.by_kmp && !matches!(source, Source::Publish(_)))
        {
            let kind = source.kind();
            let problem =
                format!("leads to our own mountpoint {}, whose source is {kind}, not publish", edge.to);
            problems.push(Problem::new(&edge.path, problem).got(edge.url.redacted()));
        }
    }
}

fn edges(config: &Config) -> Vec<Edge<'_>> {
    let mut edges = Vec::new();
    for (name, mountpoint) in &config.mountpoints {
        let at = Path::mountpoint(name);
        if let Source::Pull(pull) = &mountpoint.source
            && let Some(from) = own_mountpoint(config, &pull.url)
        {
            let path = at.field("source").field("url");
            edges.push(Edge { from, to: name, path, url: &pull.url, is_push: false, by_kmp: false });
        }
        for (index, push) in mountpoint.push.iter().enumerate() {
            let path = at.field("push").item(index).field("url");
            let edge = |to, by_kmp| Edge {
                from: name,
                to,
                path: path.clone(),
                url: &push.url,
                is_push: true,
                by_kmp,
            };
            edges.extend(own_mountpoint(config, &push.url).map(|to| edge(to, false)));
            let channels = [push.channel_id.as_deref(), push.backlog_channel_id.as_deref()];
            let channels = channels.into_iter().flatten();
            edges.extend(channels.filter_map(|id| own_channel(config, push, id)).map(|to| edge(to, true)));
        }
    }
    edges
}

fn reaches(edges: &[Edge<'_>], from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        open.extend(edges.iter().filter(|edge| edge.from == at && seen.insert(edge.to)).map(|edge| edge.to));
    }
    false
}

/// The mountpoint of ours that the URL leads to, as far as its text tells.
fn own_mountpoint<'c>(config: &'c Config, url: &SecretUrl) -> Option<&'c str> {
    let parts = url.parts().ok()?;
    let (default_port, listen) = match parts.scheme.to_ascii_lowercase().as_str() {
        "rtmp" => (1935, &config.rtmp.listen),
        "rtmps" => (443, &config.rtmp.tls.as_ref()?.listen),
        _ => return None,
    };
    let is_ours = is_ours(&parts, default_port, listen);
    let (app, name) = is_ours.then(|| parts.path.strip_prefix('/')?.split_once('/')).flatten()?;
    if app == "live" {
        return config.mountpoint_for(name).map(|(found, _)| found);
    }
    // Whatever the stream is called there, it is the camera's.
    config.compat.aggregator.cameras.get_key_value(app).map(|(found, _)| found.as_str())
}

/// The mountpoint of ours that the KMP channel feeds, if the URL leads to our own receiver.
fn own_channel<'c>(config: &'c Config, push: &Push, channel_id: &str) -> Option<&'c str> {
    let parts = push.url.parts().ok()?;
    let listen = match parts.scheme.to_ascii_lowercase().as_str() {
        "kmp" => &config.kmp.listen,
        "kmps" => &config.kmp.tls.as_ref()?.listen,
        _ => return None,
    };
    let channel = config.kmp.channels.get(channel_id)?;
    is_ours(&parts, 0, listen).then_some(channel.mountpoint.as_str())
}

fn is_ours(parts: &UrlParts<'_>, default_port: u16, listen: &[SocketAddr]) -> bool {
    let port = parts.port.unwrap_or(default_port);
    let host: Option<IpAddr> = parts.host.parse().ok();
    let is_loopback =
        parts.host.eq_ignore_ascii_case("localhost") || host.is_some_and(|host| host.is_loopback());
    listen.iter().filter(|listen| listen.port() == port).any(|listen| {
        let ip = listen.ip();
        Some(ip) == host || (is_loopback && (ip.is_unspecified() || ip.is_loopback()))
    })
}
