//! The records of one host and its page, and how they compare with what others claim.

use simple_dns::rdata::{NSEC, NsecTypeBitMap, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Label, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use std::net::IpAddr;

/// The kind of service that the page is.
const KIND: [&[u8]; 3] = [b"_https", b"_tcp", b"local"];
/// The name under which all kinds of services are listed (RFC 6763, 9).
const KINDS: [&[u8]; 4] = [b"_services", b"_dns-sd", b"_udp", b"local"];

/// What only one machine may say, in the order in which it is compared (RFC 6762, 8.2): type, then bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    V4([u8; 4]),
    V6([u8; 16]),
    Service { port: u16, target: Vec<u8> },
}

impl Claim {
    /// None: the record claims nothing.
    pub(super) fn of(record: &ResourceRecord<'_>) -> Option<Claim> {
        match &record.rdata {
            RData::A(a) => Some(Claim::V4(a.address.to_be_bytes())),
            RData::AAAA(aaaa) => Some(Claim::V6(aaaa.address.to_be_bytes())),
            RData::SRV(srv) => {
                let target = srv.target.to_string().to_ascii_lowercase().into_bytes();
                Some(Claim::Service { port: srv.port, target })
            }
            _ => None,
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Claim::V4(octets) => Some(IpAddr::from(*octets)),
            Claim::V6(octets) => Some(IpAddr::from(*octets)),
            Claim::Service { .. } => None,
        }
    }
}

/// All that is told under one name.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) host: Name<'static>,
    pub(super) instance: Name<'static>,
    pub(super) kinds: Name<'static>,
    unique: Vec<(Name<'static>, RData<'static>)>,
    shared: Vec<(Name<'static>, RData<'static>)>,
}

impl Records {
    pub(super) fn new(label: &str, addresses: &[IpAddr], port: u16) -> Self {
        let label = label.as_bytes();
        let (host, instance) = (name(&[label, b"local"]), name(&[&[label][..], &KIND].concat()));
        let (kind, kinds) = (name(&KIND), name(&KINDS));
        let mut unique: Vec<(Name<'static>, RData<'static>)> = Vec::new();
        for address in addresses {
            let rdata = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            unique.push((host.clone(), rdata));
        }
        let srv = SRV { priority: 0, weight: 0, port, target: host.clone() };
        unique.push((instance.clone(), RData::SRV(srv)));
        unique.push((instance.clone(), RData::TXT(TXT::new().with_string("path=/").unwrap_or_default())));
        // Who asks for an address that there is not, need not wait for an answer (RFC 6762, 6.1).
        let has = |wanted: fn(&IpAddr) -> bool| addresses.iter().any(wanted);
        let mut bits = [0_u8; 4];
        for (byte, bit, is_there) in [(0, 0x40, has(IpAddr::is_ipv4)), (3, 0x08, has(IpAddr::is_ipv6))] {
            if let Some(byte) = bits.get_mut(byte).filter(|_| is_there) {
                *byte |= bit;
            }
        }
        let len = bits.iter().rposition(|byte| *byte != 0).map_or(1, |last| last.saturating_add(1));
        let bitmap = bits.get(..len).unwrap_or_default().to_vec().into();
        let only =
            NSEC { next_name: host.clone(), type_bit_maps: vec![NsecTypeBitMap { window_block: 0, bitmap }] };
        unique.push((host.clone(), RData::NSEC(only)));
        let shared =
            vec![(kind.clone(), RData::PTR(PTR(instance.clone()))), (kinds.clone(), RData::PTR(PTR(kind)))];
        Records { host, instance, kinds, unique, shared }
    }

    fn each(&self) -> impl Iterator<Item = &(Name<'static>, RData<'static>)> {
        self.unique.iter().chain(&self.shared)
    }

    fn asked<'a>(
        &'a self,
        question: &'a Question<'_>,
    ) -> impl Iterator<Item = &'a (Name<'static>, RData<'static>)> {
        let fits = |(name, rdata): &&(Name<'_>, RData<'_>)| {
            is_name(&question.qname, name) && fits(question.qtype, rdata)
        };
        self.each().filter(fits)
    }

    /// Whether there is something to say to it; that there is no such address is something, too.
    pub(super) fn answer(&self, question: &Question<'_>) -> bool {
        let is_address = matches!(question.qtype, QTYPE::TYPE(TYPE::A | TYPE::AAAA));
        matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN))
            && (self.asked(question).next().is_some() || is_address && is_name(&question.qname, &self.host))
    }

    /// Whether the asker says that it knows the answer, for at least `ttl` seconds more.
    pub(super) fn is_known(&self, question: &Question<'_>, known: &[ResourceRecord<'_>], ttl: u32) -> bool {
        let mut asked = self.asked(question).peekable();
        asked.peek().is_some()
            && asked.all(|(name, rdata)| {
                known.iter().any(|it| it.ttl >= ttl && is_name(&it.name, name) && it.rdata == *rdata)
            })
    }

    /// All records. `flush`: what others remember under the names that are ours alone is to be forgotten.
    pub(super) fn all(&self, ttl: u32, flush: bool) -> Vec<ResourceRecord<'static>> {
        let unique = self.unique.iter().map(|pair| record(pair, ttl).with_cache_flush(flush));
        unique.chain(self.shared.iter().map(|pair| record(pair, ttl))).collect()
    }

    /// The answers to one question, and what is told beside it.
    pub(super) fn for_question(
        &self,
        question: Option<&Question<'_>>,
        ttl: u32,
    ) -> (Vec<ResourceRecord<'static>>, Vec<ResourceRecord<'static>>) {
        let is_asked = |record: &ResourceRecord<'_>| {
            question
                .is_some_and(|asked| is_name(&asked.qname, &record.name) && fits(asked.qtype, &record.rdata))
        };
        self.all(ttl, false).into_iter().partition(is_asked)
    }

    /// What is claimed, sorted.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> =
            self.unique.iter().filter_map(|pair| Claim::of(&record(pair, 0))).collect();
        claims.sort();
        claims
    }

    /// The question whether the names are free, with what is going to be claimed. Answers come to the group, where they
    /// are heard.
    pub(super) fn probe(&self) -> Packet<'static> {
        let mut packet = Packet::new_query(0);
        for name in [&self.host, &self.instance] {
            packet.questions.push(Question::new(name.clone(), QTYPE::ANY, QCLASS::CLASS(CLASS::IN), false));
        }
        let claims = self.all(super::TTL_SECS, false).into_iter();
        packet.name_servers = claims.filter(|record| Claim::of(record).is_some()).collect();
        packet
    }
}

fn name(labels: &[&[u8]]) -> Name<'static> {
    let labels: Vec<Label<'static>> =
        labels.iter().map(|label| Label::new_unchecked(label.to_vec())).collect();
    Name::new_with_labels(&labels)
}

fn record((name, rdata): &(Name<'static>, RData<'static>), ttl: u32) -> ResourceRecord<'static> {
    ResourceRecord::new(name.clone(), CLASS::IN, ttl, rdata.clone())
}

/// Names are alike in any case.
pub(super) fn is_name(one: &Name<'_>, other: &Name<'_>) -> bool {
    let (one, other) = (one.get_labels(), other.get_labels());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.as_ref().eq_ignore_ascii_case(other.as_ref()))
}

fn fits(wanted: QTYPE, rdata: &RData<'_>) -> bool {
    match wanted {
        QTYPE::ANY => true,
        QTYPE::TYPE(wanted) => rdata.type_code() == wanted,
        _ => false,
    }
}
