use super::*;
use crate::kmp_control::testing::{cases, client, field, media_info, publication, text};

/// Rebuilt from the values in it, so nothing is masked: ports and connection numbers are the recorded ones.
#[test]
fn every_recorded_body_comes_out_byte_for_byte() {
    let mut rebuilt = 0;
    for (case, records) in cases() {
        for record in records {
            let body = &record.body;
            let written = match record.callback.as_str() {
                "connect" => connect(&client(field(body, "rtmp"))),
                "publish" => publish(&publication(body), &media_info(body)),
                "republish" => republish(
                    &publication(body),
                    &media_info(body),
                    &text(body, "id"),
                    &text(body, "channel_id"),
                    &text(body, "track_id"),
                ),
                "unpublish" => {
                    let is_video = text(body, "input_id").ends_with("/video");
                    let kind = if is_video { MediaKind::Video } else { MediaKind::Audio };
                    let reason = Reason::from_name(&text(body, "reason"));
                    unpublish(&publication(body), kind, reason.expect("a known reason"))
                }
                other => panic!("{other}"),
            };
            assert_eq!(written, record.raw, "{case}");
            rebuilt += 1;
        }
    }
    assert_eq!(rebuilt, 258);
}

fn yard() -> Publication {
    Publication {
        client: Client {
            app: "live".into(),
            flashver: "v".into(),
            swf_url: String::new(),
            tc_url: "rtmp://h/live".into(),
            page_url: String::new(),
            addr: "[::ffff:192.0.2.7]:1935".parse().unwrap(),
            connection: 9,
        },
        name: "yard".into(),
        kind: "live".into(),
        args: "key=s3cret".into(),
    }
}

#[test]
fn the_address_has_a_port_at_connect_alone_and_is_no_mapped_one() {
    assert!(connect(&yard().client).contains(r#""addr":"192.0.2.7:1935","connection":9}}"#));
    let body = unpublish(&yard(), MediaKind::Audio, Reason::RtmpClose);
    assert!(body.contains(r#""addr":"192.0.2.7","connection":9,"name":"yard""#));
    let v6 = Client { addr: "[2001:db8::1]:7".parse().unwrap(), ..yard().client };
    assert!(connect(&v6).contains(r#""addr":"[2001:db8::1]:7""#));
    assert!(
        unpublish(&Publication { client: v6, ..yard() }, MediaKind::Video, Reason::RtmpClose)
            .contains(r#""addr":"2001:db8::1""#)
    );
}

#[test]
fn long_texts_are_cut_at_whole_characters() {
    let mut long = yard();
    long.name = "x".repeat(256);
    long.client.flashver = "y".repeat(128);
    long.args = "é".repeat(128);
    let body = unpublish(&long, MediaKind::Video, Reason::RtmpClose);
    assert!(body.contains(&format!(r#""name":"{}","type""#, "x".repeat(255))));
    assert!(body.contains(&format!(r#""flashver":"{}","swf_url""#, "y".repeat(127))));
    assert!(body.contains(&format!(r#""args":"{}"}}}}"#, "é".repeat(127))));
    assert!(body.contains(&format!("rtmp://h/live/{}/video", "x".repeat(255))));
}

#[test]
fn rates_are_cut_not_rounded_and_extra_data_is_lower_case_hex() {
    let video = |frame_rate| MediaInfo::Video {
        bitrate: 0,
        codec_id: 8,
        extra_data: Bytes::from_static(&[0xAB, 0x01]),
        width: 0,
        height: 0,
        frame_rate,
        cea_captions: true,
    };
    for (rate, shown) in
        [((989, 33), "29.96"), ((0, 1), "0.00"), ((1, 0), "0.00"), ((u32::MAX, 1), "4294967295.00")]
    {
        let body = publish(&yard(), &video(rate));
        let expected = format!(
            r#""extra_data":"ab01","width":0,"height":0,"frame_rate":{shown},"cea_captions":true}}}}"#
        );
        assert!(body.ends_with(&expected), "{body}");
    }
    let audio = MediaInfo::Audio {
        bitrate: 1,
        codec_id: 1002,
        extra_data: Bytes::new(),
        channels: 6,
        channel_layout: 0x60F,
        bits_per_sample: 16,
        sample_rate: 22050,
    };
    assert!(publish(&yard(), &audio).ends_with(
        r#""extra_data":"","channels":6,"channel_layout":"60f","bits_per_sample":16,"sample_rate":22050}}"#
    ));
}

#[test]
fn a_publication_in_a_log_has_no_secrets() {
    assert!(!format!("{:?}", yard()).contains("s3cret"));
}
