//! How far behind the source a viewer is, told by the pictures themselves.

use crate::common::fixture::Fixture;
use crate::common::healthy::{End, Publisher};
use crate::rules;
use crate::viewer::{Viewer, gateway};
use serde_json::json;
use std::time::Instant;

/// Parts that are looked at.
const PARTS: usize = 16;

/// Each part's newest picture is found among those that were published, and says when that was. What a player adds is in the
/// playlist: it stays `PART-HOLD-BACK` behind the end of the newest part.
#[test]
fn parts_arrive_in_the_order_of_their_pictures_and_tell_the_latency() {
    let gateway = gateway(json!({ "part": "250ms" }));
    let start = Instant::now();
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(10);
    let viewer = Viewer::open(&gateway);
    let mut list = rules::read(&viewer.text("video.m3u8"));
    let (mut behind, mut newest) = (Vec::new(), 0);
    while behind.len() < PARTS {
        let uri = list.hint.clone().unwrap();
        let part = viewer.get(&uri);
        let at = start.elapsed().as_millis();
        assert_eq!(part.status, 200, "{uri}: {}", part.text());
        let sent = publisher.sent();
        // Pictures repeat with the recording: the newest of them is meant.
        let stamp = sent.iter().rev().find(|tag| tag.body.len() > 60 && part.body.ends_with(&tag.body[5..]));
        let stamp = stamp.unwrap_or_else(|| panic!("{uri} ends with a picture that was published"));
        assert!(stamp.ts >= newest, "{uri}: pictures in order");
        newest = stamp.ts;
        behind.push(at.saturating_sub(stamp.ts.into()));
        let (msn, part) = (list.first + list.segments.len() as u64, list.growing.len());
        list = rules::read(&viewer.text(&format!("video.m3u8?_HLS_msn={msn}&_HLS_part={part}")));
    }
    behind.sort_unstable();
    let hold_back: f64 = list.control["PART-HOLD-BACK"].parse().unwrap();
    let (median, worst) = (behind[PARTS / 2], behind[PARTS - 1]);
    eprintln!(
        "a part's last picture: {median} ms after it was sent (at worst {worst}); hold-back {hold_back} s"
    );
    assert!(hold_back <= 1.2, "two seconds leave what the network and the player need");
}
