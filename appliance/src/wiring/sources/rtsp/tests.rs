use super::*;
use fieldgate_model::config::TestPicture;
use fieldgate_model::masks::Masks;

fn rtsp(url: &str) -> Rtsp {
    serde_json::from_value(serde_json::json!({ "url": url, "latency": "350ms" })).unwrap()
}

async fn camera(url: &str, transport: job::RtspTransport) -> (Sandbox, RtspCamera) {
    let treat = Treatments::pass(Masks::none().unmasked().unwrap());
    let job = rtsp_job("gate", &rtsp(url), transport, treat).await.unwrap();
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
fn only_the_auto_transport_tries_both() {
    let auto = Rtsp { transport: RtspTransport::Auto, ..rtsp("rtsp://h/") };
    assert!(is_auto(&Source::Rtsp(auto)) && !is_auto(&Source::Rtsp(rtsp("rtsp://h/"))));
    assert!(!is_auto(&Source::Test(TestPicture::default())));
}
