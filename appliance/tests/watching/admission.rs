//! Who may watch.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::http;
use crate::common::wait::{self, secs};
use crate::viewer::listens;
use serde_json::json;

#[test]
fn keys_count_and_a_changed_key_sends_viewers_away() {
    let config = |key: &str| {
        json!({
            "http": { "listen": ["127.0.0.1:0"], "max_viewers_per_address": 3 },
            "mountpoints": {
                "yard": { "source": { "kind": "publish" }, "hls": {}, "play": { "key": key } },
                "shut": { "source": { "kind": "publish" } },
            },
        })
    };
    let gateway = Gateway::start(config("v1ew"));
    let address = listens(&gateway, "http");
    let status = |path: &str| http::get(address, path).status;
    assert_eq!(status("/hls/nowhere/master.m3u8"), 404);
    assert_eq!(status("/hls/shut/master.m3u8"), 404, "without hls it is not watched");
    assert_eq!(status("/hls/yard/master.m3u8?key=v1ew"), 404, "nobody publishes");
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(10);
    assert_eq!(status("/hls/yard/master.m3u8"), 403);
    assert_eq!(status("/hls/yard/master.m3u8?key=wrong"), 403);
    let bearer = [("Authorization", "Bearer v1ew")];
    let master = http::request(address, "GET", "/hls/yard/master.m3u8", &bearer, b"");
    assert_eq!(master.status, 200, "{}", master.text());
    let media = format!("/hls/yard/{}", master.text().lines().last().unwrap());
    assert_eq!(status(&media), 200, "the token is enough from then on");
    let mut forged = media.clone();
    forged.replace_range(10..14, if media[10..14] == *"0000" { "1111" } else { "0000" });
    assert_eq!(status(&forged), 403);
    for _ in 0..2 {
        assert_eq!(status("/hls/yard/master.m3u8?key=v1ew"), 200);
    }
    let full = http::get(address, "/hls/yard/master.m3u8?key=v1ew");
    assert_eq!((full.status, full.header("retry-after")), (503, Some("2")), "{}", full.text());
    let (mut changed, tag) = gateway.config();
    changed["mountpoints"]["yard"]["play"]["key"] = json!("other");
    let answer = gateway.put_config(&changed, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait::until_true("the viewer to be sent away", secs(10), || status(&media) == 403);
}
