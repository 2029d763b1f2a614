use super::*;
use tokio::time::timeout;

/// A port of our own in the group, so that neither the machine's own nor another test's responder is in it.
fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn on_loopback(udp_port: u16) -> AnnouncerSettings {
    AnnouncerSettings {
        label: Some("fieldgate-7f3a".to_owned()),
        pages: vec!["0.0.0.0:8443".parse().unwrap()],
        interfaces: vec!["lo".to_owned()],
        udp_port,
    }
}

/// Somebody else in the group, whose bytes are written here by hand from RFC 1035 and RFC 6762.
struct Peer {
    socket: UdpSocket,
    port: u16,
}

impl Peer {
    fn new(port: u16) -> Self {
        let leg = legs(&on_loopback(port)).remove("lo").unwrap();
        Peer { socket: leg.open().unwrap(), port }
    }

    async fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, (GROUP, self.port)).await.unwrap();
    }

    /// Waits for a message that fits.
    async fn hears(&self, what: &str, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let hearing = async {
            let mut buffer = vec![0; 9_000];
            loop {
                let (len, _) = self.socket.recv_from(&mut buffer).await.unwrap();
                if fits(&buffer[..len]) {
                    return buffer[..len].to_vec();
                }
            }
        };
        timeout(Duration::from_secs(40), hearing).await.unwrap_or_else(|_| panic!("never heard: {what}"))
    }
}

fn holds(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}

/// The name as it stands on the wire.
const NAME: &[u8] = b"\x0efieldgate-7f3a\x05local\0";
const SECOND: &[u8] = b"\x10fieldgate-7f3a-2";
/// A, class IN with "forget what you knew", 120 s, 4 bytes: 127.0.0.1.
const ADDRESS: &[u8] = b"\0\x01\x80\x01\0\0\0\x78\0\x04\x7f\0\0\x01";

fn is_answer(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[tokio::test]
async fn a_page_is_announced_answered_for_moved_and_taken_back() {
    let port = free_port();
    let (peer, announcer, cancel) = (Peer::new(port), Announcer::default(), CancellationToken::new());
    let (feed, settings) = watch::channel(on_loopback(port));
    let running = announcer.run(settings, cancel.clone());
    let script = async {
        peer.hears("the question", |it| !is_answer(it) && holds(it, NAME)).await;
        let said = peer.hears("the announcement", |it| is_answer(it) && holds(it, NAME)).await;
        assert!(holds(&said, ADDRESS) && holds(&said, b"\x06_https\x04_tcp"), "{said:02x?}");
        assert!(holds(&said, &8_443_u16.to_be_bytes()) && holds(&said, b"path=/"));
        let told = Told { name: "fieldgate-7f3a.local".to_owned(), port: 8_443 };
        assert_eq!(announcer.told(), BTreeSet::from([told]));

        // From another port, as plain DNS asks: the answer comes to it alone, with its number.
        let asker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket2::SockRef::from(&asker).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let question = [b"\x12\x34\0\0\0\x01\0\0\0\0\0\0", NAME, b"\0\x01\0\x01"].concat();
        asker.send_to(&question, (GROUP, port)).await.unwrap();
        let mut buffer = vec![0; 9_000];
        let receiving = timeout(Duration::from_secs(40), asker.recv_from(&mut buffer));
        let (len, from) = receiving.await.expect("an answer").unwrap();
        assert_eq!((from.port(), &buffer[..2]), (port, &b"\x12\x34"[..]));
        assert!(is_answer(&buffer[..len]) && holds(&buffer[..len], b"\0\x04\x7f\0\0\x01"));

        // Somebody has had that name all along: 203.0.113.9.
        let theirs = b"\0\x01\x80\x01\0\0\0\x78\0\x04\xcb\0\x71\x09";
        peer.send(&[b"\0\0\x84\0\0\0\0\x01\0\0\0\0", NAME, theirs].concat()).await;
        peer.hears("the next name", |it| is_answer(it) && holds(it, SECOND)).await;
        assert_eq!(announcer.told().first().unwrap().name, "fieldgate-7f3a-2.local");

        // Who floods is not listened to for a while, and nothing else happens.
        for _ in 0..MAX_PER_SECOND * 2 {
            peer.send(&question[..20]).await;
        }
        feed.send_replace(AnnouncerSettings { label: Some("gate".to_owned()), ..on_loopback(port) });
        peer.hears("the old name goes", |it| holds(it, SECOND) && holds(it, b"\x80\x01\0\0\0\0")).await;
        peer.hears("the new one", |it| is_answer(it) && holds(it, b"\x04gate\x05local")).await;
        feed.send_replace(AnnouncerSettings { label: None, ..on_loopback(port) });
        peer.hears("it is taken back", |it| holds(it, b"\x04gate") && holds(it, b"\x80\x01\0\0\0\0")).await;
        cancel.cancel();
    };
    tokio::join!(running, script);
    assert!(announcer.told().is_empty());
}

#[test]
fn only_where_the_page_is_and_never_on_loopback_by_itself() {
    let settings = on_loopback(free_port());
    let legs_with = |change: fn(&mut AnnouncerSettings)| {
        let mut settings = settings.clone();
        change(&mut settings);
        legs(&settings)
    };
    assert_eq!(legs_with(|_| ()).keys().collect::<Vec<_>>(), ["lo"]);
    assert!(!legs_with(|it| it.interfaces.clear()).contains_key("lo"));
    assert!(legs_with(|it| it.pages = vec!["192.0.2.1:8443".parse().unwrap()]).is_empty());
    assert!(legs_with(|it| it.pages.clear()).is_empty() && legs_with(|it| it.label = None).is_empty());
    let leg = legs_with(|_| ()).remove("lo").unwrap();
    assert!(leg.is_near("127.9.9.9".parse().unwrap()) && !leg.is_near("203.0.113.9".parse().unwrap()));
}
