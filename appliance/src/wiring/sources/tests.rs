use super::*;
use fieldgate_model::config::Span;

fn rtsp(url: &str) -> Rtsp {
    serde_json::from_value(serde_json::json!({ "url": url, "latency": "350ms" })).unwrap()
}

async fn camera(url: &str, transport: job::RtspTransport) -> (Sandbox, RtspCamera) {
    let job = rtsp_job("gate", &rtsp(url), transport).await.unwrap();
    let Work::Rtsp(camera) = job.work else { panic!("{job:?}") };
    (job.sandbox, camera)
}

#[tokio::test]
async fn an_rtsp_address_is_taken_apart_as_it_is_meant() {
    let url = "rtsp://ad%40min:p%C3%A4ss%2Fw%3Ard@127.0.0.1:8554/main?channel=1";
    let (sandbox, camera) = camera(url, job::RtspTransport::Tcp).await;
    assert_eq!((camera.user.as_str(), camera.password.0.as_str()), ("ad@min", "päss/w:rd"));
    assert_eq!((camera.address, camera.path.as_str()), (([127, 0, 0, 1], 8554).into(), "/main?channel=1"));
    assert_eq!(camera.latency_ms, 350);
    assert_eq!((sandbox.tcp_connect, sandbox.udp), (vec![8554], false));
}

#[tokio::test]
async fn udp_is_permitted_only_where_it_is_used() {
    let (sandbox, camera) = camera("rtsp://127.0.0.1", job::RtspTransport::Udp).await;
    assert_eq!((sandbox.tcp_connect, sandbox.udp), (vec![554], true));
    assert_eq!((camera.path.as_str(), camera.user.as_str()), ("/", ""));
}

#[test]
fn what_is_not_percent_encoded_stands_for_itself() {
    for (text, meant) in
        [("plain", "plain"), ("100%", "100%"), ("a%zz%4", "a%zz%4"), ("%41%2b", "A+"), ("%ff", "%ff")]
    {
        assert_eq!(percent_decoded(text), meant);
    }
}

#[test]
fn the_settings_of_a_test_picture_reach_its_worker() {
    let test = TestPicture {
        width: 320,
        height: 180,
        frame_rate: 12,
        bitrate: 300_000,
        audio: false,
        keyframe_interval: Span::from_millis(500),
    };
    let encoder = EncoderWish { name: "openh264enc".into(), ..EncoderWish::default() };
    let job = test_job("demo", &test, encoder, vec!["/dev/dri/renderD128".into()]);
    assert_eq!((job.name.as_str(), job.sandbox.devices.len()), ("demo", 1));
    let Work::Test(camera) = job.work else { panic!() };
    assert_eq!((camera.width, camera.height, camera.frame_rate, camera.sound), (320, 180, 12, false));
    let EncoderWish { name, bitrate, gop_ms, .. } = camera.encoder;
    assert_eq!((name.as_str(), bitrate, gop_ms), ("openh264enc", 300_000, 500));
}

#[test]
fn the_settings_of_a_device_reach_its_worker_with_its_own_file_once() {
    let v4l2: V4l2 = serde_json::from_value(serde_json::json!({
        "device": "/dev/video2", "width": 800, "height": 600, "frame_rate": 15, "format": "mjpeg",
        "bitrate": 700_000, "keyframe_interval": "4s",
    }))
    .unwrap();
    let devices = vec!["/dev/video2".into(), "/dev/video11".into()];
    let job = v4l2_job("bay", &v4l2, EncoderWish::default(), devices);
    assert_eq!(job.sandbox.devices, [Path::new("/dev/video2"), Path::new("/dev/video11")]);
    let Work::V4l2(camera) = job.work else { panic!() };
    assert_eq!((camera.width, camera.height, camera.frame_rate), (800, 600, 15));
    assert_eq!(camera.format, job::V4l2Format::Mjpeg);
    assert_eq!((camera.encoder.bitrate, camera.encoder.gop_ms), (700_000, 4_000));
    assert!(!is_auto(&Source::V4l2(v4l2)));
    let auto = Rtsp { transport: RtspTransport::Auto, ..rtsp("rtsp://h/") };
    assert!(is_auto(&Source::Rtsp(auto)) && !is_auto(&Source::Rtsp(rtsp("rtsp://h/"))));
}
