use super::*;
use simple_dns::rdata::{PTR, RData, SRV};
use simple_dns::{CLASS, Name, QCLASS, QTYPE, Question, TYPE};

const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
const THEIRS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
const NAME: &str = "fieldgate-7f3a.local";
const PAGE: &str = "fieldgate-7f3a._https._tcp.local";

#[allow(clippy::disallowed_methods, reason = "a test's origin of time")]
fn start() -> Instant {
    Instant::now()
}

fn secs(seconds: f32) -> Duration {
    Duration::from_secs_f32(seconds)
}

fn host_at(address: IpAddr, now: Instant) -> Host {
    let label = "fieldgate-7f3a".to_owned();
    Host::new(Announcement { label, addresses: vec![address], own: vec![address], port: 8_443 }, now)
}

fn host(now: Instant) -> Host {
    host_at(OURS, now)
}

/// Goes on to the end of what is sent by itself; the times of all that was sent, and the last.
fn settle(host: &mut Host, now: Instant) -> (Vec<f32>, Instant) {
    let (mut sent, mut at) = (Vec::new(), now);
    while let Some(due) = host.next_timeout().filter(|_| sent.len() < 50) {
        at = due;
        if let Some(Output::Group(_)) = host.handle_timeout(at) {
            sent.push((at - now).as_secs_f32());
        }
    }
    (sent, at)
}

fn question(name: &'static str, kind: TYPE, unicast: bool) -> Packet<'static> {
    let mut packet = Packet::new_query(77);
    let class = QCLASS::CLASS(CLASS::IN);
    packet.questions.push(Question::new(Name::new_unchecked(name), QTYPE::TYPE(kind), class, unicast));
    packet
}

fn record(name: &str, address: IpAddr) -> ResourceRecord<'static> {
    let IpAddr::V4(address) = address else { panic!("a test's address is one of IPv4") };
    let name = Name::new_unchecked(name).into_owned();
    ResourceRecord::new(name, CLASS::IN, TTL_SECS, RData::A(address.into()))
}

fn wire(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec().unwrap()
}

fn response(record: ResourceRecord<'static>) -> Vec<u8> {
    let mut packet = Packet::new_reply(0);
    packet.answers.push(record);
    wire(&packet)
}

fn probe(address: IpAddr) -> Vec<u8> {
    let mut packet = question(NAME, TYPE::A, false);
    packet.name_servers.push(record(NAME, address));
    wire(&packet)
}

struct Told {
    to_group: bool,
    addresses: Vec<IpAddr>,
    ttl: u32,
    questions: usize,
    kinds: Vec<TYPE>,
}

fn told(output: Option<Output>) -> Told {
    let (to_group, bytes) = match output.expect("an answer") {
        Output::Group(bytes) => (true, bytes),
        Output::Asker(bytes) => (false, bytes),
    };
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
    let addresses = packet.answers.iter().filter_map(Claim::of).filter_map(|claim| claim.address());
    Told {
        to_group,
        addresses: addresses.collect(),
        ttl: packet.answers.first().map_or(0, |record| record.ttl),
        questions: packet.questions.len(),
        kinds: packet.answers.iter().map(|record| record.rdata.type_code()).collect(),
    }
}

fn ask(host: &mut Host, packet: &Packet<'_>, is_peer: bool, now: Instant) -> Option<Output> {
    host.handle_message(&wire(packet), is_peer, now).unwrap()
}

#[test]
fn a_name_is_probed_then_announced_then_answered_for() {
    let now = start();
    let mut host = host(now);
    assert_eq!(host.name(), None, "not before it is known to be free");
    let (sent, at) = settle(&mut host, now);
    assert_eq!(sent, [0.0, 0.25, 0.5, 0.75, 1.75], "three questions, two announcements");
    assert_eq!(host.name().as_deref(), Some(NAME));
    let later = at + secs(5.0);
    assert_eq!(ask(&mut host, &question("FieldGate-7F3A.local", TYPE::A, false), true, later), None);
    let due = host.next_timeout().expect("the answer waits a little");
    assert!((20..=120).contains(&(due - later).as_millis()), "{:?}", due - later);
    let answer = told(host.handle_timeout(due));
    assert_eq!((answer.to_group, answer.addresses, answer.ttl), (true, vec![OURS], 120));
    assert_eq!(answer.kinds, [TYPE::A, TYPE::SRV, TYPE::TXT, TYPE::NSEC, TYPE::PTR, TYPE::PTR]);
    // The group heard it just now, so the next one waits; many questions are one answer.
    for _ in 0..100 {
        assert_eq!(ask(&mut host, &question("_https._tcp.local", TYPE::PTR, false), true, due), None);
    }
    assert_eq!(host.next_timeout(), Some(due + secs(1.0)));
    assert!(host.handle_timeout(due + secs(1.0)).is_some() && host.next_timeout().is_none());

    let alone = told(ask(&mut host, &question(NAME, TYPE::A, true), true, later));
    assert_eq!((alone.to_group, alone.addresses, alone.ttl), (false, vec![OURS], 120));
    let plain = told(ask(&mut host, &question(NAME, TYPE::A, false), false, later));
    assert_eq!((plain.to_group, plain.ttl, plain.questions), (false, 10, 1), "who knows plain DNS alone");
    let none = told(ask(&mut host, &question(NAME, TYPE::AAAA, false), false, later));
    assert_eq!((none.to_group, none.kinds.len()), (false, 0), "there is no such address");
    for (name, kind) in [("other.local", TYPE::A), (NAME, TYPE::TXT), ("_ipp._tcp.local", TYPE::PTR)] {
        assert_eq!(ask(&mut host, &question(name, kind, true), true, later), None, "{name}");
    }
    let bye = host.goodbye().unwrap();
    let bye = Packet::parse(&bye).unwrap();
    assert!(bye.answers.len() == 5 && bye.answers.iter().all(|record| record.ttl == 0));
}

#[test]
fn the_page_is_found_by_its_kind() {
    let now = start();
    let mut host = host(now);
    settle(&mut host, now);
    for (name, kind, wanted) in [
        ("_https._tcp.local", TYPE::PTR, PAGE),
        ("_services._dns-sd._udp.local", TYPE::PTR, "_https._tcp.local"),
    ] {
        let Some(Output::Asker(bytes)) = ask(&mut host, &question(name, kind, false), false, now) else {
            panic!("no answer to {name}")
        };
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.answers.len(), 1, "{name}");
        let RData::PTR(PTR(target)) = &packet.answers[0].rdata else { panic!("no pointer") };
        assert_eq!(target.to_string(), wanted);
        let srv = packet.additional_records.iter().find_map(|it| match &it.rdata {
            RData::SRV(srv) => Some((it.name.to_string(), srv.port, srv.target.to_string())),
            _ => None,
        });
        assert_eq!(srv, Some((PAGE.to_owned(), 8_443, NAME.to_owned())), "with it comes where");
    }
}

#[test]
fn who_knows_it_need_not_be_told() {
    let now = start();
    let mut host = host(now);
    settle(&mut host, now);
    let mut knowing = question(NAME, TYPE::A, true);
    knowing.answers.push(record(NAME, OURS));
    assert_eq!(ask(&mut host, &knowing, true, now), None);
    knowing.answers[0].ttl = TTL_SECS / 2 - 1;
    assert!(ask(&mut host, &knowing, true, now).is_some(), "he forgets it soon");
    knowing.answers[0] = record(NAME, THEIRS);
    assert!(ask(&mut host, &knowing, true, now).is_some(), "he knows another one");
}

#[test]
fn a_name_that_somebody_has_is_left_to_him() {
    let now = start();
    let mut host = host(now);
    host.handle_timeout(now);
    host.handle_message(&response(record(NAME, THEIRS)), true, now).unwrap();
    let (_, at) = settle(&mut host, now);
    assert_eq!(host.name().as_deref(), Some("fieldgate-7f3a-2.local"));
    // Our own word, heard on another interface, and a stranger who does not speak it, take nothing away.
    let second = "fieldgate-7f3a-2.local";
    host.handle_message(&response(record(second, OURS)), true, at).unwrap();
    host.handle_message(&response(record(second, THEIRS)), false, at).unwrap();
    let mut gone = record(second, THEIRS);
    gone.ttl = 0;
    host.handle_message(&response(gone), true, at).unwrap();
    assert_eq!(host.name().as_deref(), Some(second));
    host.handle_message(&response(record(second, THEIRS)), true, at).unwrap();
    assert_eq!(host.name(), None, "probed anew");
    settle(&mut host, at);
    assert_eq!(host.name().as_deref(), Some("fieldgate-7f3a-3.local"));
    let target = Name::new_unchecked("other.local");
    let page = Name::new_unchecked("fieldgate-7f3a-3._https._tcp.local");
    let srv = SRV { priority: 0, weight: 0, port: 443, target };
    let theirs = ResourceRecord::new(page, CLASS::IN, 120, RData::SRV(srv));
    host.handle_message(&response(theirs.into_owned()), true, at).unwrap();
    assert_eq!(host.name(), None, "somebody's page has our name");
}

#[test]
fn of_two_that_probe_at_once_one_gives_way() {
    let now = start();
    let (mut less, mut greater) = (host_at(OURS, now), host_at(THEIRS, now));
    let Some(Output::Group(first)) = less.handle_timeout(now) else { panic!("no probe") };
    let Some(Output::Group(second)) = greater.handle_timeout(now) else { panic!("no probe") };
    less.handle_message(&second, true, now).unwrap();
    greater.handle_message(&first, true, now).unwrap();
    assert_eq!(less.next_timeout(), Some(now + YIELD), "it asks again later");
    let (_, at) = settle(&mut greater, now);
    assert_eq!(greater.name().as_deref(), Some(NAME));
    // By then the other one has it, and says so at once.
    let Some(Output::Group(again)) = less.handle_timeout(now + YIELD) else { panic!("no probe") };
    let defence = match greater.handle_message(&again, true, at).unwrap() {
        Some(Output::Group(defence)) => defence,
        _ => match greater.handle_timeout(at + DEFEND_EVERY) {
            Some(Output::Group(defence)) => defence,
            other => panic!("it does not defend its name: {other:?}"),
        },
    };
    less.handle_message(&defence, true, at).unwrap();
    settle(&mut less, at);
    assert_eq!(less.name().as_deref(), Some("fieldgate-7f3a-2.local"));
    // What we send ourselves, and hear again, is nobody else's.
    let mut same = host(now);
    let Some(Output::Group(own)) = same.handle_timeout(now) else { panic!("no probe") };
    same.handle_message(&own, true, now).unwrap();
    same.handle_message(&probe(OURS), true, now).unwrap();
    settle(&mut same, now);
    assert_eq!(same.name().as_deref(), Some(NAME));
}

#[test]
fn who_takes_every_name_silences_us_for_a_while() {
    let now = start();
    let mut host = host(now);
    for number in 1..100 {
        let name = if number == 1 { NAME.to_owned() } else { format!("fieldgate-7f3a-{number}.local") };
        host.handle_message(&response(record(&name, THEIRS)), true, now).unwrap();
    }
    assert_eq!((host.name(), host.goodbye(), host.next_timeout()), (None, None, Some(now + GIVE_UP)));
    assert_eq!(ask(&mut host, &question(NAME, TYPE::A, true), true, now), None);
    settle(&mut host, now);
    assert_eq!(host.name().as_deref(), Some(NAME), "he is gone");
}

#[test]
fn nobody_makes_us_shout() {
    let now = start();
    let mut host = host(now);
    let (_, at) = settle(&mut host, now);
    let at = at + secs(10.0);
    let alone =
        |host: &mut Host, is_peer, at| ask(host, &question(NAME, TYPE::A, true), is_peer, at).is_some();
    let answers = (0..1_000).filter(|number| alone(&mut host, number % 2 == 0, at)).count();
    assert_eq!(answers, usize::from(MAX_ALONE));
    assert!(alone(&mut host, true, at + secs(1.0)), "the next second is another one");
    let mut sent = 0;
    for milli in 0..2_000_u64 {
        let now = at + Duration::from_millis(milli);
        sent += usize::from(host.handle_message(&probe(THEIRS), true, now).unwrap().is_some());
        sent += usize::from(host.handle_timeout(now).is_some());
    }
    assert!((7..=9).contains(&sent), "{sent} answers to 2,000 probes in two seconds");
}

#[test]
fn what_is_no_dns_is_refused_and_nothing_panics() {
    let now = start();
    let mut host = host(now);
    assert!(host.handle_message(&[0; 11], true, now).is_err());
    assert!(host.handle_message(&vec![0; crate::dns_sd::MAX_LEN + 1], true, now).is_err());
    let mut promising = wire(&question(NAME, TYPE::A, true));
    promising[6] = 0xff;
    assert!(host.handle_message(&promising, true, now).is_err());
    fn target(data: &[u8]) {
        fuzz(data, start());
    }
    let seeds = [response(record(NAME, THEIRS)), probe(THEIRS), wire(&question(PAGE, TYPE::SRV, true))];
    crate::mutation::run(target, &seeds, 3_000, 0x9E37_79B9_7F4A_7C15);
}
