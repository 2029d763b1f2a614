//! What differs between two configs, and how carefully it must be done.

use super::{Compat, Config, KmpApplication, KmpControl, Mountpoint, Push};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a config is made of, as far as a change can be told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Part {
    /// Where RTMP is listened for.
    RtmpListen,
    /// Where RTMP over TLS is listened for, and with which certificate.
    RtmpTls,
    /// Limits and timeouts of the RTMP server.
    RtmpLimits,
    /// Where KMP is listened for.
    KmpListen,
    /// Where KMP over TLS is listened for, and with which certificate.
    KmpTls,
    /// Channels, senders, limits and timeouts of the KMP receiver.
    KmpLimits,
    /// Where viewers' HTTP is listened for.
    HttpListen,
    /// Where viewers' HTTPS is listened for, and with which certificate.
    HttpTls,
    /// Limits and timeouts of the viewers' HTTP server.
    HttpLimits,
    /// Where the admin API is listened for.
    AdminListen,
    /// How the media plane uses the machine.
    Media,
    /// How much of the machine may be used.
    Limits,
    /// Where cameras are looked for.
    Discovery,
    /// What is kept of what happened, and who is told.
    Events,
    /// How a fleet manager reaches the gateway.
    Fleet,
    /// The machine's own network.
    Network,
    /// The machine's time.
    Time,
    /// The machine's firmware.
    Update,
    /// One RTMP application under a controller (`compat.kmp.applications`).
    KmpApplication {
        /// Its name.
        name: String,
    },
    /// The API of `compat.kmp`.
    KmpApi,
    /// `compat.aggregator`: its API and its cameras' types and keys.
    Aggregator,
    /// The node of a mesh (`compat.node`).
    MeshNode,
    /// The coordinator (`compat.coordinator`).
    Coordinator,
    /// A coordinator elsewhere (`compat.control`).
    Control,
    /// A coordinator elsewhere, as its encoder (`compat.encoder`).
    Encoder,
    /// A mountpoint: as a whole when added or removed, else its bounds.
    Mountpoint {
        /// Its name.
        name: String,
    },
    /// A mountpoint's source.
    Source {
        /// The mountpoint.
        name: String,
    },
    /// Who may play a mountpoint, and how.
    Play {
        /// The mountpoint.
        name: String,
    },
    /// One push.
    Push {
        /// The mountpoint.
        name: String,
        /// Its [`Push::effective_id`].
        id: String,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::RtmpListen => f.write_str("rtmp.listen"),
            Part::RtmpTls => f.write_str("rtmp.tls"),
            Part::RtmpLimits => f.write_str("rtmp"),
            Part::KmpListen => f.write_str("kmp.listen"),
            Part::KmpTls => f.write_str("kmp.tls"),
            Part::KmpLimits => f.write_str("kmp"),
            Part::HttpListen => f.write_str("http.listen"),
            Part::HttpTls => f.write_str("http.tls"),
            Part::HttpLimits => f.write_str("http"),
            Part::AdminListen => f.write_str("admin.listen"),
            Part::Media => f.write_str("media"),
            Part::Limits => f.write_str("limits"),
            Part::Discovery => f.write_str("discovery"),
            Part::Events => f.write_str("events"),
            Part::Fleet => f.write_str("fleet"),
            Part::Network => f.write_str("network"),
            Part::Time => f.write_str("time"),
            Part::Update => f.write_str("update"),
            Part::KmpApplication { name } => write!(f, "KMP application {name}"),
            Part::KmpApi => f.write_str("compat.kmp.api"),
            Part::Aggregator => f.write_str("compat.aggregator"),
            Part::MeshNode => f.write_str("compat.node"),
            Part::Coordinator => f.write_str("compat.coordinator"),
            Part::Control => f.write_str("compat.control"),
            Part::Encoder => f.write_str("compat.encoder"),
            Part::Mountpoint { name } => write!(f, "mountpoint {name}"),
            Part::Source { name } => write!(f, "source of {name}"),
            Part::Play { name } => write!(f, "play of {name}"),
            Part::Push { name, id } => write!(f, "push {id} of {name}"),
        }
    }
}

/// What happens to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ChangeAction")]
pub enum Action {
    /// It was not there before.
    Added,
    /// It is there no more.
    Removed,
    /// It stays with other settings.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What differs.
    #[serde(flatten)]
    pub part: Part,
    /// How.
    pub action: Action,
}

/// All differences between two configs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Changes(pub Vec<Change>);

/// What must be healthy again before a change counts as good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: the way in was touched.
    All,
    /// These parts alone.
    Parts(Vec<Part>),
}

impl Changes {
    /// Whether both configs are the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody must confirm the change, over the new way in.
    ///
    /// Only what touches the way in, or an existing source or upstream; additions and removals stand at once.
    pub fn is_provisional(&self) -> bool {
        self.0.iter().any(is_provisional)
    }

    /// What a provisional change touches and keeps.
    pub fn scope(&self) -> Scope {
        let touched = self.0.iter().filter(|change| is_provisional(change));
        let parts: Vec<Part> = touched.map(|change| change.part.clone()).collect();
        let is_way_in = |part: &Part| {
            let is_rtmp = matches!(part, Part::RtmpListen | Part::RtmpTls);
            is_rtmp || matches!(part, Part::KmpListen | Part::KmpTls | Part::AdminListen | Part::Network)
        };
        if parts.iter().any(is_way_in) { Scope::All } else { Scope::Parts(parts) }
    }

    /// Whether some setting takes effect at the next start only.
    pub fn needs_restart(&self) -> bool {
        self.0.iter().any(|change| change.part == Part::Media)
    }
}

fn is_provisional(change: &Change) -> bool {
    match change.part {
        // Also what is added or removed here changes how the gateway is reached.
        Part::RtmpListen
        | Part::RtmpTls
        | Part::KmpListen
        | Part::KmpTls
        | Part::AdminListen
        | Part::Network => true,
        Part::Fleet | Part::Source { .. } | Part::Push { .. } => change.action == Action::Changed,
        // What a controller is asked shows only with the next stream: nothing to confirm by.
        Part::KmpApplication { .. } | Part::KmpApi | Part::Aggregator | Part::MeshNode | Part::Coordinator
        | Part::Control
        | Part::Encoder => {
            false
        }
        Part::RtmpLimits
        | Part::Discovery
        | Part::Events
        | Part::Time
        // Its own trial judges it, and goes back.
        | Part::Update
        | Part::KmpLimits
        // Viewers come and go: nothing of the gateway's own way in or out depends on them.
        | Part::HttpListen
        | Part::HttpTls
        | Part::HttpLimits
        | Part::Media
        | Part::Limits
        | Part::Mountpoint { .. }
        | Part::Play { .. } => false,
    }
}

/// All differences between `from` and `to`, in a fixed order.
pub fn diff(from: &Config, to: &Config) -> Changes {
    let mut changes = Changes::default();
    let mut changed = |differs: bool, part: Part| {
        if differs {
            changes.0.push(Change { part, action: Action::Changed });
        }
    };
    // Destructured, so that a new setting cannot be forgotten here.
    let Config {
        schema: _,
        rtmp,
        kmp,
        http,
        admin,
        media,
        limits: use_limits,
        discovery,
        events,
        fleet,
        network,
        time,
        update,
        mountpoints,
        compat,
    } = from;
    changed(rtmp.listen != to.rtmp.listen, Part::RtmpListen);
    changed(rtmp.tls != to.rtmp.tls, Part::RtmpTls);
    let limits = super::Rtmp { listen: to.rtmp.listen.clone(), tls: to.rtmp.tls.clone(), ..rtmp.clone() };
    changed(limits != to.rtmp, Part::RtmpLimits);
    changed(kmp.listen != to.kmp.listen, Part::KmpListen);
    changed(kmp.tls != to.kmp.tls, Part::KmpTls);
    let rest = super::Kmp { listen: to.kmp.listen.clone(), tls: to.kmp.tls.clone(), ..kmp.clone() };
    changed(rest != to.kmp, Part::KmpLimits);
    changed(http.listen != to.http.listen, Part::HttpListen);
    changed(http.tls != to.http.tls, Part::HttpTls);
    let rest = super::Http { listen: to.http.listen.clone(), tls: to.http.tls.clone(), ..http.clone() };
    changed(rest != to.http, Part::HttpLimits);
    changed(*admin != to.admin, Part::AdminListen);
    changed(*media != to.media, Part::Media);
    changed(*discovery != to.discovery, Part::Discovery);
    changed(*events != to.events, Part::Events);
    changed(*network != to.network, Part::Network);
    changed(*time != to.time, Part::Time);
    changed(*update != to.update, Part::Update);
    let has_way = fleet.mqtt.is_some() || fleet.pull.is_some() || fleet.folder.is_some();
    changed(has_way && *fleet != to.fleet, Part::Fleet);
    changed(*use_limits != to.limits, Part::Limits);
    let Compat { kmp: KmpControl { applications, api }, aggregator, node, coordinator, control, encoder } =
        compat;
    changed(*node != to.compat.node, Part::MeshNode);
    changed(*coordinator != to.compat.coordinator, Part::Coordinator);
    changed(*control != to.compat.control, Part::Control);
    changed(*encoder != to.compat.encoder, Part::Encoder);
    changed(*api != to.compat.kmp.api, Part::KmpApi);
    changed(*aggregator != to.compat.aggregator, Part::Aggregator);
    if !has_way && *fleet != to.fleet {
        // The first way in of this kind takes nothing away from anybody.
        changes.0.push(Change { part: Part::Fleet, action: Action::Added });
    }
    diff_applications(applications, &to.compat.kmp.applications, &mut changes.0);
    for name in
        mountpoints.keys().chain(to.mountpoints.keys().filter(|name| !mountpoints.contains_key(*name)))
    {
        let part = || Part::Mountpoint { name: name.clone() };
        match (mountpoints.get(name), to.mountpoints.get(name)) {
            (Some(old), Some(new)) => diff_mountpoint(name, old, new, &mut changes.0),
            (None, Some(_)) => changes.0.push(Change { part: part(), action: Action::Added }),
            (Some(_), None) => changes.0.push(Change { part: part(), action: Action::Removed }),
            (None, None) => {}
        }
    }
    changes
}

fn diff_applications(
    old: &BTreeMap<String, KmpApplication>,
    new: &BTreeMap<String, KmpApplication>,
    changes: &mut Vec<Change>,
) {
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let action = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => Action::Changed,
            (Some(_), None) => Action::Removed,
            (None, _) => Action::Added,
        };
        changes.push(Change { part: Part::KmpApplication { name: name.clone() }, action });
    }
}

fn diff_mountpoint(name: &str, old: &Mountpoint, new: &Mountpoint, changes: &mut Vec<Change>) {
    let mut changed = |differs: bool, part: Part| {
        if differs {
            changes.push(Change { part, action: Action::Changed });
        }
    };
    let name = name.to_owned();
    let Mountpoint { source, push, play, .. } = old;
    changed(*source != new.source, Part::Source { name: name.clone() });
    changed(*play != new.play, Part::Play { name: name.clone() });
    let bounds = Mountpoint {
        source: new.source.clone(),
        push: new.push.clone(),
        play: new.play.clone(),
        ..old.clone()
    };
    changed(bounds != *new, Part::Mountpoint { name: name.clone() });
    diff_pushes(&name, push, &new.push, changes);
}

fn diff_pushes(name: &str, old: &[Push], new: &[Push], changes: &mut Vec<Change>) {
    let by_id = |pushes: &[Push]| -> BTreeMap<String, Push> {
        pushes.iter().map(|push| (push.effective_id(), push.clone())).collect()
    };
    let (old, new) = (by_id(old), by_id(new));
    let mut gone = old.keys().filter(|id| !new.contains_key(*id)).count();
    for (id, push) in &new {
        let action = match old.get(id) {
            Some(before) if before == push => continue,
            Some(_) => Action::Changed,
            // Without an id of its own a push whose URL changes has a new one. That is a change of an existing
            // upstream, not one that goes and one that comes.
            None if gone > 0 && push.id.is_none() => {
                gone -= 1;
                Action::Changed
            }
            None => Action::Added,
        };
        changes.push(Change { part: Part::Push { name: name.to_owned(), id: id.clone() }, action });
    }
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        changes.push(Change {
            part: Part::Push { name: name.to_owned(), id: id.clone() },
            action: Action::Removed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(mountpoints: serde_json::Value) -> Config {
        serde_json::from_value(json!({"mountpoints": mountpoints})).unwrap()
    }

    fn changes(from: &Config, to: &Config) -> Vec<String> {
        diff(from, to).0.iter().map(|change| format!("{:?} {}", change.action, change.part)).collect()
    }

    fn base() -> Config {
        config(json!({
            "a": {"source": {"kind": "publish"}, "push": [{"url": "rtmp://up/live/a"}, {"url": "rtmp://up/live/b", "id": "b"}]},
            "b": {"source": {"kind": "test"}},
        }))
    }

    #[test]
    fn the_same_config_has_no_changes() {
        assert!(diff(&base(), &base()).is_empty());
        assert!(!diff(&base(), &base()).is_provisional());
    }

    #[test]
    fn additions_and_removals_stand_at_once() {
        let mut to = base();
        to.mountpoints.insert("c".to_owned(), to.mountpoints["b"].clone());
        to.mountpoints.remove("b");
        to.mountpoints.get_mut("a").unwrap().push.pop();
        assert_eq!(
            changes(&base(), &to),
            ["Removed push b of a", "Removed mountpoint b", "Added mountpoint c"]
        );
        assert!(!diff(&base(), &to).is_provisional());
        assert!(!diff(&to, &base()).is_provisional());
    }

    #[test]
    fn a_changed_source_or_upstream_must_be_confirmed() {
        let mut to = base();
        to.mountpoints.get_mut("b").unwrap().source = to.mountpoints["a"].source.clone();
        assert_eq!(changes(&base(), &to), ["Changed source of b"]);
        assert_eq!(diff(&base(), &to).scope(), Scope::Parts(vec![Part::Source { name: "b".to_owned() }]));
        let mut to = base();
        to.mountpoints.get_mut("a").unwrap().push[1].enabled = false;
        assert_eq!(changes(&base(), &to), ["Changed push b of a"]);
        assert!(diff(&base(), &to).is_provisional());
    }

    #[test]
    fn a_push_without_id_whose_url_changes_is_a_changed_upstream() {
        let mut to = base();
        to.mountpoints.get_mut("a").unwrap().push[0].url = super::super::SecretUrl::new("rtmp://up/live/z");
        let found = diff(&base(), &to);
        assert!(found.is_provisional(), "{found:?}");
    }

    #[test]
    fn a_new_way_in_wants_everything_healthy() {
        let mut to = base();
        to.admin.listen.clear();
        assert_eq!(changes(&base(), &to), ["Changed admin.listen"]);
        assert_eq!(diff(&base(), &to).scope(), Scope::All);
    }

    #[test]
    fn bounds_and_keys_for_players_stand_at_once() {
        let mut to = base();
        to.mountpoints.get_mut("a").unwrap().max_lag = crate::config::Span::from_secs(1);
        to.mountpoints.get_mut("a").unwrap().play.key = Some(crate::config::Secret::new("k"));
        to.rtmp.max_connections = 7;
        to.media.shards = Some(1);
        assert_eq!(
            changes(&base(), &to),
            ["Changed rtmp", "Changed media", "Changed play of a", "Changed mountpoint a"]
        );
        assert!(!diff(&base(), &to).is_provisional());
        assert!(diff(&base(), &to).needs_restart());
    }

    #[test]
    fn what_a_controller_is_asked_changes_at_once() {
        let kmp = |kmp: serde_json::Value| -> Config {
            serde_json::from_value(json!({"compat": {"kmp": kmp}})).unwrap()
        };
        let from = kmp(json!({"applications": {"a": {"publish_url": "http://ctl/"}, "b": {"retries": 1}}}));
        let to = kmp(json!({
            "applications": {"a": {"publish_url": "http://other/"}, "c": {}},
            "api": {"write": true},
        }));
        assert_eq!(
            changes(&from, &to),
            [
                "Changed compat.kmp.api",
                "Changed KMP application a",
                "Removed KMP application b",
                "Added KMP application c",
            ]
        );
        assert!(!diff(&from, &to).is_provisional());
    }
}
