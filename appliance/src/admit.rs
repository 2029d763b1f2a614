//! Who may publish and play: the config's keys and address lists.

use fieldgate_hub::{Action, Admit, Request, Terms, Verdict};
use fieldgate_model::config::{Config, Mountpoint, Network, Secret, Source, WhenAbsent, is_stream_name};
use fieldgate_net::KeyCheck;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// The application under which mountpoints are published and played.
pub const APPLICATION: &str = "live";

/// Makes instances of template mountpoints; fulfilled by the supervisor's handle.
pub trait Instances: Send + Sync {
    /// Makes sure that `name` exists as a stream under its template; the error is for the peer.
    fn instantiate(&self, name: &str) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

    /// Whether a mountpoint of that name exists now.
    fn exists(&self, name: &str) -> bool;
}

/// Answers from the config in force.
pub struct ConfigAdmit {
    config: watch::Receiver<Arc<Config>>,
    instances: Arc<dyn Instances>,
}

impl ConfigAdmit {
    /// Answers by the newest config of `config`.
    pub fn new(config: watch::Receiver<Arc<Config>>, instances: Arc<dyn Instances>) -> Self {
        ConfigAdmit { config, instances }
    }

    /// Whether a peer that was admitted with this request still is, by the newest config; else why not. A mountpoint that
    /// is gone takes its peers with it and is not judged here.
    pub fn still_admits(&self, request: &Request) -> Result<(), String> {
        let config = self.config.borrow().clone();
        let name = mountpoint_name(request);
        config.mountpoint_for(name).map_or(Ok(()), |(_, mountpoint)| may(request, name, mountpoint, &config))
    }

    async fn judge(&self, request: Request) -> Verdict {
        if !self.knows_application(&request.app) {
            return Verdict::UnknownApplication;
        }
        let name = mountpoint_name(&request);
        if !is_stream_name(name) {
            return Verdict::UnknownName;
        }
        let config = self.config.borrow().clone();
        let Some((known, mountpoint)) = config.mountpoint_for(name) else {
            return Verdict::UnknownName;
        };
        if let Err(text) = may(&request, name, mountpoint, &config) {
            return Verdict::Deny { text };
        }
        let is_template = known.ends_with('*');
        if is_template && !self.instances.exists(name) {
            // A player may not create what only a publisher brings to life.
            if request.action == Action::Play {
                return Verdict::UnknownName;
            }
            if let Err(text) = self.instances.instantiate(name).await {
                return Verdict::Deny { text };
            }
        }
        let play = &mountpoint.play;
        let terms = Terms {
            wait_for_publisher: play.when_absent == WhenAbsent::Wait,
            gather: play.gather.get(),
            chunk_len: play.chunk_len,
        };
        Verdict::Allow { mountpoint: name.to_owned(), terms }
    }
}

impl Admit for ConfigAdmit {
    fn knows_application(&self, app: &str) -> bool {
        app == APPLICATION || self.config.borrow().compat.aggregator.cameras.contains_key(app)
    }

    fn admit(&self, request: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        Box::pin(self.judge(request))
    }
}

/// A registered camera's application has one stream, whatever its publisher and players call it.
fn mountpoint_name(request: &Request) -> &str {
    if request.app == APPLICATION { &request.name } else { &request.app }
}

fn may(request: &Request, name: &str, mountpoint: &Mountpoint, config: &Config) -> Result<(), String> {
    let aggregator = &config.compat.aggregator;
    if let (Action::Publish, Some(camera)) = (request.action, aggregator.cameras.get(name)) {
        if !aggregator.publish_allow.iter().any(|network| network.contains(request.peer)) {
            return Err(format!(
                "your address may not publish the camera {name}; ask for it to be added to publish_allow"
            ));
        }
        let of_mountpoint = match &mountpoint.source {
            Source::Publish(publish) => publish.key.as_ref(),
            _ => None,
        };
        let offered = request.key.as_deref();
        if !has_key(offered, camera.key.as_ref().or(of_mountpoint)) {
            return Err("publish key is missing or wrong; add ?key=KEY to the stream name".to_owned());
        }
        return Ok(());
    }
    let (key, allow) = match (request.action, &mountpoint.source) {
        (Action::Play, _) => (&mountpoint.play.key, &mountpoint.play.allow),
        (Action::Publish, Source::Publish(publish)) => (&publish.key, &publish.allow),
        (Action::Publish, other) => {
            return Err(format!("{name} is fed by its own {} source", other.kind()));
        }
    };
    let what = match request.action {
        Action::Publish => "publish",
        Action::Play => "play",
    };
    if !may_from(request.peer, key.is_some(), allow) {
        return Err(format!("your address may not {what} {name}; ask for it to be added to allow"));
    }
    if !has_key(request.key.as_deref(), key.as_ref()) {
        return Err(format!("{what} key is missing or wrong; add ?key=KEY to the stream name"));
    }
    Ok(())
}

/// Without a key only this machine and listed addresses may; with a key anybody may, unless a list narrows it.
fn may_from(peer: IpAddr, has_key: bool, allow: &[Network]) -> bool {
    let listed = allow.iter().any(|network| network.contains(peer));
    listed || if has_key { allow.is_empty() } else { peer.is_loopback() }
}

fn has_key(offered: Option<&str>, expected: Option<&Secret>) -> bool {
    expected.is_none_or(|expected| KeyCheck::new(expected.reveal()).matches(offered.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<&'static str>);

    impl Instances for Fixed {
        fn instantiate(&self, name: &str) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            let room = name != "s-full";
            Box::pin(async move { if room { Ok(()) } else { Err("64 streams are there already".into()) } })
        }
        fn exists(&self, name: &str) -> bool {
            self.0.contains(&name)
        }
    }

    fn admit() -> ConfigAdmit {
        let config = serde_json::json!({ "mountpoints": {
            "yard": { "source": { "kind": "publish", "key": "s3cret" }, "play": { "key": "v1ew" } },
            "open": { "source": { "kind": "publish", "allow": ["10.1.0.0/16"] },
                      "play": { "allow": ["10.2.0.0/16"], "when_absent": "refuse" } },
            "both": { "source": { "kind": "publish", "key": "k", "allow": ["10.1.0.0/16"] } },
            "demo": { "source": { "kind": "test" } },
            "s*": { "source": { "kind": "publish", "key": "k" } },
        }});
        let config: Config = serde_json::from_value(config).unwrap();
        let (_, receiver) = watch::channel(Arc::new(config));
        ConfigAdmit::new(receiver, Arc::new(Fixed(vec!["s-live"])))
    }

    async fn ask(action: Action, peer: &str, name: &str, key: Option<&str>) -> Verdict {
        let request = Request {
            action,
            peer: peer.parse().unwrap(),
            app: "live".into(),
            name: name.into(),
            key: key.map(str::to_owned),
            client: None,
            revoked: Arc::default(),
        };
        admit().admit(request).await
    }

    fn allowed(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Allow { .. })
    }

    #[tokio::test]
    async fn a_key_is_asked_for_wherever_one_is_set() {
        for peer in ["127.0.0.1", "8.8.8.8"] {
            assert!(allowed(&ask(Action::Publish, peer, "yard", Some("s3cret")).await));
            assert!(!allowed(&ask(Action::Publish, peer, "yard", Some("s3cre")).await));
            assert!(!allowed(&ask(Action::Publish, peer, "yard", Some("v1ew")).await));
            assert!(!allowed(&ask(Action::Publish, peer, "yard", None).await));
            assert!(allowed(&ask(Action::Play, peer, "yard", Some("v1ew")).await));
            assert!(!allowed(&ask(Action::Play, peer, "yard", Some("s3cret")).await));
        }
    }

    #[tokio::test]
    async fn without_a_key_only_loopback_and_listed_addresses_may() {
        assert!(allowed(&ask(Action::Publish, "127.0.0.1", "open", None).await));
        assert!(allowed(&ask(Action::Publish, "10.1.2.3", "open", None).await));
        assert!(!allowed(&ask(Action::Publish, "10.2.2.3", "open", None).await));
        assert!(allowed(&ask(Action::Play, "10.2.2.3", "open", None).await));
        assert!(!allowed(&ask(Action::Play, "8.8.8.8", "demo", None).await));
    }

    #[tokio::test]
    async fn a_list_narrows_a_key() {
        assert!(allowed(&ask(Action::Publish, "10.1.2.3", "both", Some("k")).await));
        assert!(!allowed(&ask(Action::Publish, "10.9.2.3", "both", Some("k")).await));
        assert!(!allowed(&ask(Action::Publish, "127.0.0.1", "both", Some("k")).await));
    }

    #[tokio::test]
    async fn a_registered_camera_has_an_application_of_its_own() {
        let config = |publish_allow: &[&str]| -> Config {
            serde_json::from_value(serde_json::json!({
                "compat": {"aggregator": {"publish_allow": publish_allow, "cameras": {"cam": {}, "shut": {"key": "k"}}}},
                "mountpoints": {"cam": {"source": {"kind": "publish"}}, "shut": {"source": {"kind": "publish"}}},
            }))
            .unwrap()
        };
        let verdict =
            async |networks: &[&str], action, peer: &str, app: &str, name: &str, key: Option<&str>| {
                let (_, receiver) = watch::channel(Arc::new(config(networks)));
                let request = Request {
                    action,
                    peer: peer.parse().unwrap(),
                    app: app.into(),
                    name: name.into(),
                    key: key.map(str::to_owned),
                    client: None,
                    revoked: Arc::default(),
                };
                match ConfigAdmit::new(receiver, Arc::new(Fixed(Vec::new()))).admit(request).await {
                    Verdict::Allow { mountpoint, .. } => mountpoint,
                    other => format!("{other:?}").split(' ').next().unwrap().to_owned(),
                }
            };
        let near = ["10.0.0.0/8"];
        let publish = Action::Publish;
        // Whatever the stream is called.
        assert_eq!(verdict(&near, publish, "10.0.0.7", "cam", "cam", None).await, "cam");
        assert_eq!(verdict(&near, publish, "10.0.0.7", "cam", "foo", None).await, "cam");
        assert_eq!(verdict(&near, publish, "10.0.0.7", "cam", "../x", None).await, "cam");
        assert_eq!(
            verdict(&near, publish, "127.0.0.1", "cam", "cam", None).await,
            "Deny",
            "loopback is no exception"
        );
        assert_eq!(verdict(&[], publish, "127.0.0.1", "cam", "cam", None).await, "Deny");
        assert_eq!(verdict(&near, publish, "127.0.0.1", "live", "cam", None).await, "Deny", "nor is live");
        assert_eq!(verdict(&near, publish, "10.0.0.7", "shut", "shut", None).await, "Deny");
        assert_eq!(verdict(&near, publish, "10.0.0.7", "shut", "shut", Some("k")).await, "shut");
        assert_eq!(verdict(&near, publish, "10.0.0.7", "ghost", "ghost", None).await, "UnknownApplication");
        assert_eq!(verdict(&near, Action::Play, "127.0.0.1", "cam", "any", None).await, "cam");
        assert_eq!(
            verdict(&near, Action::Play, "10.0.0.7", "cam", "cam", None).await,
            "Deny",
            "as play.allow says"
        );
    }

    #[tokio::test]
    async fn the_terms_come_from_the_mountpoint() {
        let Verdict::Allow { terms, .. } = ask(Action::Play, "127.0.0.1", "open", None).await else {
            panic!()
        };
        assert!(!terms.wait_for_publisher);
    }

    #[tokio::test]
    async fn cameras_are_not_published_to_and_unknown_names_are_unknown() {
        assert!(matches!(ask(Action::Publish, "127.0.0.1", "demo", None).await, Verdict::Deny { .. }));
        assert_eq!(ask(Action::Publish, "127.0.0.1", "nope", None).await, Verdict::UnknownName);
        assert_eq!(ask(Action::Publish, "127.0.0.1", "../etc", None).await, Verdict::UnknownName);
    }

    #[tokio::test]
    async fn a_template_lives_by_its_publishers_alone() {
        assert!(allowed(&ask(Action::Publish, "127.0.0.1", "s7", Some("k")).await));
        assert!(!allowed(&ask(Action::Publish, "127.0.0.1", "s-full", Some("k")).await));
        assert!(!allowed(&ask(Action::Publish, "127.0.0.1", "s7", None).await), "keys first");
        assert_eq!(ask(Action::Play, "127.0.0.1", "s7", None).await, Verdict::UnknownName);
        assert!(allowed(&ask(Action::Play, "127.0.0.1", "s-live", None).await));
    }
}
