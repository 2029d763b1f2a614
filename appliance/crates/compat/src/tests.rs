use super::*;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A system whose whole API is `DELETE /NAME`, answered once the mountpoint is gone for good, within five seconds.
#[derive(Default)]
struct Remover {
    open: BTreeMap<ExchangeId, Instant>,
    actions: VecDeque<Action>,
}

const PATIENCE: Duration = Duration::from_secs(5);

impl Remover {
    fn reply(&mut self, exchange: ExchangeId, status: u16) {
        self.open.remove(&exchange);
        self.actions.push_back(Action::Reply(exchange, Reply { status, headers: vec![], body: vec![] }));
    }
}

impl Translator for Remover {
    fn handle_request(&mut self, exchange: ExchangeId, request: Request, now: Instant) {
        match (request.method.as_str(), request.target.strip_prefix('/')) {
            ("DELETE", Some(name)) if !name.is_empty() => {
                self.open.insert(exchange, now + PATIENCE);
                let command = Command::RemoveMountpoint { name: name.to_owned() };
                self.actions.push_back(Action::Command(exchange, command));
            }
            _ => self.reply(exchange, 404),
        }
    }
    fn handle_frame(&mut self, exchange: ExchangeId, _: Frame, _: Instant) {
        self.actions.push_back(Action::Send(exchange, Frame::Close));
    }
    fn handle_reply(&mut self, _: ExchangeId, _: CallOutcome, _: Instant) {}
    fn handle_outcome(&mut self, exchange: ExchangeId, outcome: CommandOutcome, _: Instant) {
        if self.open.contains_key(&exchange) {
            self.reply(exchange, if outcome == CommandOutcome::Done { 204 } else { 409 });
        }
    }
    fn handle_question(&mut self, exchange: ExchangeId, _: Question, _: Instant) {
        self.actions.push_back(Action::Verdict(exchange, Verdict::NotMine));
    }
    fn handle_status(&mut self, _: &Status, _: Instant) {}
    fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<ExchangeId> = self
            .open
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(exchange, _)| *exchange)
            .collect();
        late.into_iter().for_each(|exchange| self.reply(exchange, 504));
    }
    fn next_timeout(&self) -> Option<Instant> {
        self.open.values().min().copied()
    }
    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

fn delete(target: &str) -> Request {
    let peer = IpAddr::from([127, 0, 0, 1]);
    Request { method: "DELETE".to_owned(), target: target.to_owned(), headers: vec![], body: vec![], peer }
}

fn status(translator: &mut dyn Translator) -> Option<u16> {
    match translator.poll_action() {
        Some(Action::Reply(_, reply)) => Some(reply.status),
        _ => None,
    }
}

#[allow(clippy::disallowed_methods, reason = "only differences matter")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn a_reply_that_promises_durability_waits_for_its_outcome() {
    let (mut remover, now, exchange) = (Remover::default(), start(), ExchangeId(1));
    remover.handle_request(exchange, delete("/yard"), now);
    let asked = Action::Command(exchange, Command::RemoveMountpoint { name: "yard".to_owned() });
    assert_eq!(remover.poll_action(), Some(asked));
    assert_eq!(remover.poll_action(), None, "no reply before the outcome");
    remover.handle_outcome(exchange, CommandOutcome::Done, now);
    assert_eq!(status(&mut remover), Some(204));
    remover.handle_outcome(exchange, CommandOutcome::Done, now);
    assert_eq!(remover.poll_action(), None, "an exchange ends once");
}

#[test]
fn time_is_handed_in() {
    let (mut remover, now, exchange) = (Remover::default(), start(), ExchangeId(1));
    assert_eq!(remover.next_timeout(), None);
    remover.handle_request(exchange, delete("/yard"), now);
    remover.poll_action();
    assert_eq!(remover.next_timeout(), Some(now + PATIENCE));
    remover.handle_timeout(now + PATIENCE - Duration::from_nanos(1));
    assert_eq!(remover.poll_action(), None);
    remover.handle_timeout(now + PATIENCE);
    assert_eq!(status(&mut remover), Some(504));
    assert_eq!(remover.next_timeout(), None);
}
