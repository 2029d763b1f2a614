//! The race and its errors, with time paused and a network that does as it is told.

use super::*;
use fieldgate_hub::Retry;
use std::collections::HashMap;
use std::error::Error;
use std::future::pending;
use std::sync::Mutex;

/// What an address does when it is connected to.
#[derive(Clone, Copy)]
enum Answer {
    After(Duration),
    Refuse,
    RefuseAfter(Duration),
    Silence,
}

struct Script {
    begin: Instant,
    /// `None`: the name does not resolve.
    resolved: Option<Vec<SocketAddr>>,
    resolve_takes: Duration,
    answers: HashMap<SocketAddr, Answer>,
    /// Each attempt's address and milliseconds since the begin.
    attempts: Mutex<Vec<(SocketAddr, u128)>>,
    /// Attempts dropped before their end.
    dropped: Mutex<Vec<SocketAddr>>,
}

impl Script {
    fn new(answers: &[(&str, Answer)]) -> Self {
        let answers: Vec<_> = answers.iter().map(|(address, answer)| (at(address), *answer)).collect();
        Script {
            begin: Instant::now(),
            resolved: Some(answers.iter().map(|(address, _)| *address).collect()),
            resolve_takes: Duration::ZERO,
            answers: answers.into_iter().collect(),
            attempts: Mutex::default(),
            dropped: Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<SocketAddr, DialError> {
        let options = DialOptions::default();
        connect_host(self, "cam.example", 1935, &options, self.begin + options.timeout).await
    }

    fn attempts(&self) -> Vec<(SocketAddr, u128)> {
        self.attempts.lock().unwrap().clone()
    }
}

struct OnDrop<'a>(&'a Script, Option<SocketAddr>);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.dropped.lock().unwrap().extend(self.1);
    }
}

impl Net for Script {
    type Socket = SocketAddr;

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        tokio::time::sleep(self.resolve_takes).await;
        self.resolved.clone().ok_or_else(|| io::Error::other("no such name"))
    }

    async fn connect(&self, address: SocketAddr, _: &DialOptions) -> io::Result<SocketAddr> {
        let elapsed = self.begin.elapsed().as_millis();
        self.attempts.lock().unwrap().push((address, elapsed));
        let mut guard = OnDrop(self, Some(address));
        let outcome = match self.answers[&address] {
            Answer::After(time) => {
                tokio::time::sleep(time).await;
                Ok(address)
            }
            Answer::RefuseAfter(time) => {
                tokio::time::sleep(time).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Answer::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
            Answer::Silence => pending().await,
        };
        guard.1 = None;
        outcome
    }
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 1935)
}

const V6: &str = "2001:db8::1";
const V4: &str = "192.0.2.1";
const QUICK: Answer = Answer::After(Duration::from_millis(10));

#[tokio::test(start_paused = true)]
async fn a_silent_address_costs_a_quarter_second_and_not_the_connection() {
    let script = Script::new(&[(V6, Answer::Silence), (V4, QUICK)]);
    assert_eq!(script.connect().await.unwrap(), at(V4));
    assert_eq!(script.attempts(), [(at(V6), 0), (at(V4), 250)]);
    assert_eq!(*script.dropped.lock().unwrap(), [at(V6)], "the loser is dropped");
}

#[tokio::test(start_paused = true)]
async fn a_refused_address_passes_the_turn_on_at_once() {
    let script = Script::new(&[(V6, Answer::Refuse), (V4, QUICK)]);
    assert_eq!(script.connect().await.unwrap(), at(V4));
    assert_eq!(script.attempts(), [(at(V6), 0), (at(V4), 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_address_still_wins_if_it_answers_first() {
    let script = Script::new(&[(V6, Answer::After(Duration::from_millis(300))), (V4, Answer::Silence)]);
    assert_eq!(script.connect().await.unwrap(), at(V6));
    assert_eq!(*script.dropped.lock().unwrap(), [at(V4)]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_answers_in_time_is_tried_alone() {
    let script = Script::new(&[(V6, QUICK), (V4, QUICK)]);
    assert_eq!(script.connect().await.unwrap(), at(V6));
    assert_eq!(script.attempts(), [(at(V6), 0)]);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_each_addresss_failure_is_told() {
    let script = Script::new(&[(V6, Answer::RefuseAfter(Duration::from_millis(400))), (V4, Answer::Refuse)]);
    let error = script.connect().await.unwrap_err();
    let DialError::Unreachable { failures, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failures.0.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [at(V4), at(V6)]);
    let text = error.to_string();
    assert!(text.contains("192.0.2.1 refused") && text.contains("2001:db8::1 refused"), "{text}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_race_that_nobody_wins() {
    let script = Script::new(&[(V6, Answer::Refuse), (V4, Answer::Silence)]);
    let error = script.connect().await.unwrap_err();
    assert_eq!(script.begin.elapsed(), DialOptions::default().timeout);
    let DialError::TimedOut { stage: Stage::Connect, failures, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failures.0.len(), 1, "failures until then are told");
    assert!(error.to_string().contains("10s; 2001:db8::1 refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn time_spent_on_dns_counts() {
    let mut script = Script::new(&[(V4, Answer::Silence)]);
    script.resolve_takes = Duration::from_secs(9);
    assert!(matches!(script.connect().await, Err(DialError::TimedOut { stage: Stage::Connect, .. })));
    assert_eq!(script.begin.elapsed(), DialOptions::default().timeout);

    let mut script = Script::new(&[(V4, QUICK)]);
    script.resolve_takes = Duration::from_secs(11);
    assert!(matches!(script.connect().await, Err(DialError::TimedOut { stage: Stage::Resolve, .. })));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_says_what_to_check() {
    let mut script = Script::new(&[]);
    script.resolved = None;
    let error = script.connect().await.unwrap_err();
    assert_eq!(error.to_string(), "name cam.example does not resolve: check the name or the gateway's DNS");
    assert_eq!(error.source().unwrap().to_string(), "no such name");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_says_so() {
    let script = Script::new(&[]);
    assert!(matches!(script.connect().await, Err(DialError::NoAddress { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_literal_address_is_not_looked_up() {
    let mut script = Script::new(&[("::1", QUICK)]);
    script.resolved = None;
    let options = DialOptions::default();
    let connected = connect_host(&script, "::1", 1935, &options, Instant::now() + options.timeout).await;
    assert_eq!(connected.unwrap(), at("::1"));
}

#[test]
fn families_take_turns_and_the_resolvers_first_choice_leads() {
    let resolved = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.3"].map(at).to_vec();
    let ordered: Vec<_> = race::interleave(resolved).into();
    assert_eq!(ordered, ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"].map(at));
}

#[test]
fn a_name_with_hundreds_of_addresses_is_tried_at_sixteen() {
    let many = |count: u16| {
        let v4 = (0..count).map(|n| at(&format!("192.0.{}.{}", n / 256, n % 256)));
        race::interleave(v4.chain((0..count).map(|n| at(&format!("2001:db8::{n:x}")))).collect())
    };
    assert_eq!(many(8).len(), race::MAX_ADDRESSES);
    assert_eq!(many(300).len(), race::MAX_ADDRESSES);
    assert_eq!(many(300).iter().filter(|address| address.is_ipv6()).count(), 8, "neither family starves");
}

#[tokio::test]
async fn a_target_that_names_no_server_is_not_retried() {
    for (host, port) in [("", 1935), ("a b", 1935), ("cam.example/live", 1935), ("[::1]", 1935), ("cam", 0)] {
        let target = Target { host: host.to_owned(), port, tls: None };
        let error = dial(&target, &DialOptions::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Malformed { .. }), "{host:?}: {error:?}");
        assert_eq!(error.retry(), Retry::Never);
    }
    assert!(check(&"a".repeat(MAX_HOST_LEN), 1).is_ok());
    assert!(check(&"a".repeat(MAX_HOST_LEN + 1), 1).is_err());
}

#[tokio::test]
async fn a_socket_connected_to_itself_counts_as_refused() {
    // With the target among the ports that the kernel hands out, one retry in some thousands meets itself; binding
    // the source to the target brings the case about at once.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let stream = socket.connect(address).await.unwrap();
    assert_eq!(not_itself(stream).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
