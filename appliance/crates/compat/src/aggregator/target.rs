//! Where streams are pushed to, and where they are then watched.

use super::reply::Refused;
use fieldgate_model::config::{CameraType, Push, SecretUrl, Span, host_port, is_stream_name};
use std::fmt;

/// Longest wait between two tries of a push. With the usual spread it stays under 30 s.
const BACKOFF_CAP: Span = Span::from_secs(25);
/// The port of an engine's API, which callers write behind its name; streams do not go there.
const ENGINE_API_PORT: u16 = 5000;

/// A streaming engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Engine {
    /// An address without brackets, or a name.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Engine {
    pub(super) fn parse(text: &str) -> Option<Engine> {
        let (host, port) = host_port(text)?;
        Some(Engine { host: host.to_owned(), port })
    }

    /// As a caller of a gen-2 engine means it: behind the name may stand its API's port.
    pub(super) fn without_api_port(self) -> Engine {
        Engine { port: self.port.filter(|port| *port != ENGINE_API_PORT), ..self }
    }

    /// Without the port.
    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bracketed())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// One place that a stream is pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) engine: Engine,
    pub(super) app: String,
    pub(super) name: String,
    id: String,
    url: String,
}

impl Target {
    /// Gen 1: the stream is called as the caller says.
    pub(super) fn stream(engine: &Engine, key: &str) -> Target {
        let url = format!("rtmp://{}:{}/live/{key}", engine.bracketed(), engine.port.unwrap_or(1935));
        Target::at(engine.clone(), "live", key, url)
    }

    /// Gen 2: the stream is called as its camera, under its type.
    pub(super) fn camera(engine: &Engine, kind: CameraType, camera: &str) -> Target {
        let url = format!("rtmp://{engine}/{}/{camera}", kind.as_str());
        let id = Push::new(SecretUrl::new(format!("rtmp://{engine}"))).effective_id();
        let mut target = Target::at(engine.clone(), kind.as_str(), camera, url);
        target.id = format!("{}{id}", Push::ENGINE_ID);
        target
    }

    /// Spelt out by the caller: `rtmp://HOST[:PORT]/APP/NAME`.
    pub(super) fn spelt_out(url: &str) -> Result<Target, Refused> {
        let refused = || {
            let text = "target_url must be rtmp://HOST/APP/NAME or rtmp://HOST:PORT/APP/NAME";
            Refused::new(400, text)
        };
        let (engine, path) =
            url.strip_prefix("rtmp://").and_then(|rest| rest.split_once('/')).ok_or_else(refused)?;
        let engine = Engine::parse(engine).ok_or_else(refused)?;
        let (app, name) = path.split_once('/').ok_or_else(refused)?;
        if !is_stream_name(app) || !is_stream_name(name) {
            return Err(refused());
        }
        let url = format!("rtmp://{}:{}/{app}/{name}", engine.bracketed(), engine.port.unwrap_or(1935));
        Ok(Target::at(engine, app, name, url))
    }

    fn at(engine: Engine, app: &str, name: &str, url: String) -> Target {
        let id = format!("stream-{}", Push::new(SecretUrl::new(url.clone())).effective_id());
        Target { engine, app: app.to_owned(), name: name.to_owned(), id, url }
    }

    pub(super) fn push(&self) -> Push {
        Push {
            id: Some(self.id.clone()),
            backoff_cap: BACKOFF_CAP,
            ..Push::new(SecretUrl::new(self.url.clone()))
        }
    }
}

/// Where a gen-1 engine's viewers watch.
pub(super) fn hls_of_stream(engine: &Engine, name: &str) -> String {
    format!("http://{}:8080/hls/{name}.m3u8", engine.bracketed())
}

/// Where a gen-2 engine's viewers watch.
pub(super) fn hls_of_camera(engine: &Engine, camera: &str) -> String {
    format!("http://{}:80/hls/{camera}.m3u8", engine.bracketed())
}

/// Where a push that exists is watched.
pub(super) fn hls_of_push(push: &Push) -> Option<String> {
    let parts = push.url.parts().ok()?;
    let engine = Engine { host: parts.host.to_owned(), port: parts.port };
    let name = parts.path.rsplit('/').next()?;
    Some(if push.is_to_engine() { hls_of_camera(&engine, name) } else { hls_of_stream(&engine, name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(text: &str) -> Engine {
        Engine::parse(text).unwrap()
    }

    #[test]
    fn targets_are_those_of_each_generation() {
        for (host, gen_1, gen_2, hls) in [
            (
                "10.0.0.5",
                "rtmp://10.0.0.5:1935/live/k",
                "rtmp://10.0.0.5/plane/c",
                "http://10.0.0.5:8080/hls/k.m3u8",
            ),
            (
                "[2001:db8::7]:1936",
                "rtmp://[2001:db8::7]:1936/live/k",
                "rtmp://[2001:db8::7]:1936/plane/c",
                "http://[2001:db8::7]:8080/hls/k.m3u8",
            ),
        ] {
            let stream = Target::stream(&engine(host), "k").push();
            assert_eq!(stream.url.reveal(), gen_1);
            let camera = Target::camera(&engine(host), CameraType::Plane, "c").push();
            assert_eq!(camera.url.reveal(), gen_2);
            assert!(camera.is_to_engine() && !stream.is_to_engine());
            assert_eq!(hls_of_push(&stream).unwrap(), hls);
        }
        let same = |kind| Target::camera(&engine("e"), kind, "c").push().effective_id();
        assert_eq!(same(CameraType::Live), same(CameraType::Round), "the engine is the same");
        assert_eq!(engine("10.0.0.5:5000").without_api_port(), engine("10.0.0.5"));
        assert_eq!(engine("10.0.0.5:1936").without_api_port().port, Some(1936));
    }

    #[test]
    fn a_spelt_out_target_is_rtmp_with_an_application_and_a_name() {
        assert_eq!(Target::spelt_out("rtmp://h/a/b").unwrap().push().url.reveal(), "rtmp://h:1935/a/b");
        for url in [
            "",
            "rtmp://",
            "rtmp://h",
            "rtmp://h/a",
            "rtmp://h/a/",
            "rtmp://h/a/b/c",
            "rtmp://h/a/b?x",
            "http://h/a/b",
            "rtmp://u:p@h/a/b",
            "rtmp://h:0/a/b",
            "rtmp://h/a/../b",
            "rtmps://h/a/b",
        ] {
            assert!(Target::spelt_out(url).is_err(), "{url}");
        }
    }

    #[test]
    fn check_19_the_longest_wait_stays_under_half_a_minute() {
        let cap = Target::stream(&engine("e"), "k").push().backoff_cap.get();
        assert!(cap.mul_f64(1.2) <= std::time::Duration::from_secs(30));
    }
}
