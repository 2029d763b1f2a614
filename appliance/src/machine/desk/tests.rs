use super::*;
use crate::store::{Confirmed, Meta};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

struct Helper {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Value>>>,
    says_no: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_file(&self.socket).ok();
    }
}

fn socket() -> PathBuf {
    let mut number = [0; 8];
    getrandom::fill(&mut number).unwrap();
    std::env::temp_dir().join(format!("fg-desk-{:x}", u64::from_le_bytes(number)))
}

impl Helper {
    fn start() -> Helper {
        let socket = socket();
        let listener = UnixListener::bind(&socket).unwrap();
        let (asked, says_no) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard, no) = (asked.clone(), says_no.clone());
        #[allow(clippy::disallowed_methods, reason = "a helper for this test alone")]
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut line = Vec::new();
                while !line.ends_with(b"\n") && stream.read_buf(&mut line).await.is_ok_and(|len| len > 0) {}
                heard.lock().unwrap().push(serde_json::from_slice(&line).unwrap());
                let said: &[u8] =
                    if no.load(Ordering::Relaxed) { b"{\"refused\":\"no\"}\n" } else { b"{\"done\":true}\n" };
                stream.write_all(said).await.ok();
            }
        });
        Helper { socket, asked, says_no, task }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn network(value: Value) -> MachineNetwork {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn the_helper_gets_the_secret_and_is_not_asked_twice_for_the_same() {
    let helper = Helper::start();
    let desk = Desk::new(helper.socket.clone());
    let wanted = network(json!({"links": {"wlan0": {"wifi": {"ssid": "yard", "psk": "12345678"}}}}));
    desk.set_network(&wanted).await.unwrap();
    desk.set_network(&wanted).await.unwrap();
    let asked = helper.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["verb"], "set_network");
    assert_eq!(asked[0]["network"]["links"]["wlan0"]["wifi"]["psk"], "12345678");
    assert_eq!(desk.states().0, State::Applied);
    desk.set_network(&MachineNetwork::default()).await.unwrap();
    assert_eq!(helper.asked().len(), 2, "and the way back is one");
}

#[tokio::test]
async fn a_refusal_is_a_problem_of_the_config_and_is_shown() {
    let helper = Helper::start();
    helper.says_no.store(true, Ordering::Relaxed);
    let desk = Desk::new(helper.socket.clone());
    let problem = desk.set_network(&network(json!({"hostname": "gate"}))).await.unwrap_err();
    assert_eq!(problem.to_string(), "network: the system helper refuses: no");
    assert_eq!(desk.notices()[0].code, "network_not_set");
    helper.says_no.store(false, Ordering::Relaxed);
    desk.set_network(&network(json!({"hostname": "gate"}))).await.unwrap();
    assert!(desk.notices().is_empty());
}

#[tokio::test]
async fn without_a_helper_only_a_config_that_wants_nothing_is_as_it_should_be() {
    let desk = Desk::new(socket());
    desk.set_network(&MachineNetwork::default()).await.unwrap();
    assert_eq!(desk.states(), (State::Untouched, State::Untouched));
    let problem = desk.set_network(&network(json!({"hostname": "gate"}))).await.unwrap_err();
    assert!(problem.problem.contains("does not answer at") && problem.remedy.is_some(), "{problem}");
}

fn view(config: Config) -> View {
    let meta = Meta { schema: 1, revision: 1, by: "ann".to_owned(), at: Default::default() };
    let confirmed = Arc::new(Confirmed { config: Config::default(), meta });
    View { confirmed, history: Default::default(), running: Arc::new(config), status: Default::default() }
}

#[tokio::test]
async fn it_keeps_at_it_until_the_machine_is_as_the_config_says() {
    let helper = Helper::start();
    helper.says_no.store(true, Ordering::Relaxed);
    let desk = Arc::new(Desk::new(helper.socket.clone()));
    let config: Config =
        serde_json::from_value(json!({"network": {"hostname": "gate"}, "time": {"zone": "UTC"}})).unwrap();
    let (feed, seen) = watch::channel(view(config));
    let cancel = CancellationToken::new();
    let (keeper, stop) = (desk.clone(), cancel.clone());
    #[allow(clippy::disallowed_methods, reason = "ends with this test")]
    let task = tokio::spawn(async move { keeper.keep(seen, stop).await });
    while helper.asked().len() < 4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(desk.states(), (State::Failed { .. }, State::Failed { .. })));
    helper.says_no.store(false, Ordering::Relaxed);
    while desk.states() != (State::Applied, State::Applied) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    feed.send_replace(view(Config::default()));
    while helper.asked().last() != Some(&json!({"verb": "set_time", "time": {"ntp": []}})) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        helper.asked().contains(&json!({"verb": "set_network", "network": {"links": {}, "uplinks": []}}))
    );
    cancel.cancel();
    task.await.unwrap();
}
