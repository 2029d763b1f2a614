use super::*;
use fieldgate_model::job::EncoderWish;

fn rtsp(url: &str) -> Rtsp {
    serde_json::from_value(serde_json::json!({ "url": url, "latency": "350ms" })).unwrap()
}

fn told(url: &str, transport: job::RtspTransport) -> (Sandbox, RtspCamera) {
    let rtsp = rtsp(url);
    let parts = rtsp.taken_url().parts().unwrap();
    let user = percent_decoded(parts.user.unwrap_or_default());
    let password = percent_decoded(parts.password.unwrap_or_default());
    let treat = Treatments::plain(EncoderWish::default(), false);
    let address = ([127, 0, 0, 1], parts.port.unwrap_or(RTSP_PORT)).into();
    let job = job_of("gate", camera(&rtsp, parts, address, transport, (user, password), treat), Vec::new());
    let Work::Rtsp(camera) = job.work else { panic!() };
    (job.sandbox, camera)
}

#[test]
fn an_rtsp_address_is_taken_apart_as_it_is_meant() {
    let url = "rtsp://ad%40min:p%C3%A4ss%2Fw%3Ard@127.0.0.1:8554/main?channel=1";
    let (sandbox, camera) = told(url, job::RtspTransport::Tcp);
    assert_eq!((camera.user.as_str(), camera.password.0.as_str()), ("ad@min", "päss/w:rd"));
    assert_eq!((camera.address, camera.path.as_str()), (([127, 0, 0, 1], 8554).into(), "/main?channel=1"));
    assert_eq!(camera.latency_ms, 350);
    assert_eq!((sandbox.tcp_connect, sandbox.udp), (vec![8554], false));
}

#[test]
fn udp_is_permitted_only_where_it_is_used() {
    let (sandbox, camera) = told("rtsp://127.0.0.1", job::RtspTransport::Udp);
    assert_eq!((sandbox.tcp_connect, sandbox.udp), (vec![554], true));
    assert_eq!((camera.path.as_str(), camera.user.as_str()), ("/", ""));
}

#[test]
fn the_sub_stream_is_taken_where_it_is_wanted() {
    let settings = serde_json::json!({"url": "rtsp://h/1", "sub_url": "rtsp://h/2", "stream": "sub"});
    let rtsp: Rtsp = serde_json::from_value(settings).unwrap();
    assert_eq!(rtsp.taken_url().reveal(), "rtsp://h/2");
}

#[test]
fn what_is_not_percent_encoded_stands_for_itself() {
    for (text, meant) in
        [("plain", "plain"), ("100%", "100%"), ("a%zz%4", "a%zz%4"), ("%41%2b", "A+"), ("%ff", "%ff")]
    {
        assert_eq!(percent_decoded(text), meant);
    }
}
