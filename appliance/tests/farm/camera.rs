//! A camera that follows a script: RTSP by the letter of RFC 2326 (and 7826 where they agree), over TCP and UDP, and
//! whatever is wrong with it on purpose. Nothing of it is the gateway's code.

use super::film::{Coding, Film, kind};
use super::request::{Request, authorised, challenge};
use super::rtp::{Sender, nals_of, tone};
use super::script::Script;
use crate::common::address::{own_address, own_address_of};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TURN: Duration = Duration::from_millis(4);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A running camera; ends with this value.
pub(crate) struct Camera {
    address: SocketAddr,
    world: Arc<World>,
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections that were accepted.
    pub(crate) connections: AtomicU64,
    /// Connections that were turned away because there was one already.
    pub(crate) turned_away: AtomicU64,
    /// Sessions that began to play.
    pub(crate) played: AtomicU64,
    /// Requests that showed a user name and password which were refused.
    pub(crate) refused_logins: AtomicU64,
    /// Requests beyond what it takes to play.
    pub(crate) keep_alives: AtomicU64,
    /// Sessions that ended by `TEARDOWN`.
    pub(crate) teardowns: AtomicU64,
    /// Sessions that were closed because nobody kept them alive.
    pub(crate) expired: AtomicU64,
}

struct World {
    script: Mutex<Script>,
    seen: Seen,
    open: AtomicU64,
    /// The NAL units of each picture that went out, over all sessions.
    sent: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl Camera {
    pub(crate) fn start(script: Script) -> Camera {
        Camera::start_on(own_address(), script)
    }

    pub(crate) fn start_at(host: Ipv4Addr, script: Script) -> Camera {
        Camera::start_on(own_address_of(host), script)
    }

    pub(crate) fn start_on(address: SocketAddr, script: Script) -> Camera {
        let listener = TcpListener::bind(address).unwrap();
        let world = Arc::new(World {
            script: Mutex::new(script),
            seen: Seen::default(),
            open: AtomicU64::new(0),
            sent: Mutex::default(),
        });
        let camera = Camera { address, world, listening: Mutex::new(None) };
        camera.listen(listener);
        camera
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("rtsp://{}/main", self.address)
    }

    pub(crate) fn url_with(&self, login: &str) -> String {
        format!("rtsp://{login}@{}/main", self.address)
    }

    pub(crate) fn seen(&self, what: fn(&Seen) -> &AtomicU64) -> u64 {
        what(&self.world.seen).load(Ordering::SeqCst)
    }

    /// What it does from the next session on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut lock(&self.world.script));
    }

    /// The NAL units of each picture that went out so far, over all sessions, without parameter sets.
    pub(crate) fn sent(&self) -> Vec<Vec<Vec<u8>>> {
        lock(&self.world.sent).clone()
    }

    /// Gone without a word, as when its power fails.
    pub(crate) fn power_off(&self) {
        if let Some(Listening { stop, thread }) = lock(&self.listening).take() {
            stop.store(true, Ordering::SeqCst);
            thread.join().unwrap();
        }
    }

    pub(crate) fn power_on(&self) {
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        let (world, stop) = (self.world.clone(), Arc::new(AtomicBool::new(false)));
        let stop_there = stop.clone();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || accept(&listener, &world, &stop_there));
        *lock(&self.listening) = Some(Listening { stop, thread });
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn accept(listener: &TcpListener, world: &Arc<World>, stop: &Arc<AtomicBool>) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        serving.retain(|thread| !thread.is_finished());
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(TURN);
            continue;
        };
        let script = lock(&world.script).clone();
        if script.one_connection && world.open.load(Ordering::SeqCst) > 0 {
            world.seen.turned_away.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        world.seen.connections.fetch_add(1, Ordering::SeqCst);
        world.open.fetch_add(1, Ordering::SeqCst);
        let (world, stop) = (world.clone(), stop.clone());
        serving.push(std::thread::spawn(move || {
            Connection::new(socket, script, &world).serve(&stop);
            world.open.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    for thread in serving {
        thread.join().unwrap();
    }
}

/// How one stream's packets go.
enum Way {
    Interleaved(u8),
    /// RTP and RTCP sockets, connected.
    Udp(UdpSocket, UdpSocket),
}

struct Track {
    sender: Sender,
    way: Option<Way>,
    /// One packet that is to come after the next.
    held: Option<Vec<u8>>,
    count: u64,
}

struct Connection<'a> {
    socket: TcpStream,
    script: Script,
    world: &'a World,
    input: Vec<u8>,
    video: Track,
    sound: Track,
    began: Option<Instant>,
    next_picture: u64,
    next_sound: u64,
    reported: Option<Instant>,
    heard: Instant,
    stalled: bool,
    done: bool,
}

impl<'a> Connection<'a> {
    fn new(socket: TcpStream, script: Script, world: &'a World) -> Self {
        socket.set_nonblocking(false).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(TURN)).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let track = |payload_type, ssrc| Track {
            sender: Sender::new(payload_type, ssrc),
            way: None,
            held: None,
            count: 0,
        };
        Connection {
            socket,
            script,
            world,
            input: Vec::new(),
            video: track(96, 0x0f1e_2d3c),
            sound: track(8, 0x1a2b_3c4d),
            began: None,
            next_picture: 0,
            next_sound: 0,
            reported: None,
            heard: Instant::now(),
            stalled: false,
            done: false,
        }
    }

    fn serve(&mut self, stop: &AtomicBool) {
        let mut bytes = [0; 4096];
        while !self.done && !stop.load(Ordering::SeqCst) {
            match self.socket.read(&mut bytes) {
                Ok(0) => return,
                Ok(n) => self.input.extend_from_slice(&bytes[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
            while let Some(request) = Request::take(&mut self.input) {
                self.heard = Instant::now();
                if self.answer(&request).is_err() {
                    return;
                }
            }
            if self.play().is_err() {
                return;
            }
            if self
                .script
                .session_timeout
                .is_some_and(|limit| self.began.is_some() && self.heard.elapsed() > limit)
            {
                self.world.seen.expired.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }

    fn answer(&mut self, request: &Request) -> std::io::Result<()> {
        let seen = &self.world.seen;
        if let Some(login) = self.script.login.filter(|_| request.method != "OPTIONS") {
            match request.header("authorization") {
                Some(shown) if authorised(login, self.script.password, shown, request) => {}
                shown => {
                    if shown.is_some() {
                        seen.refused_logins.fetch_add(1, Ordering::SeqCst);
                    }
                    return self.reply(request, "401 Unauthorized", &challenge(login), "");
                }
            }
        }
        match request.method.as_str() {
            "OPTIONS" | "GET_PARAMETER" | "SET_PARAMETER" => {
                if self.began.is_some() {
                    seen.keep_alives.fetch_add(1, Ordering::SeqCst);
                }
                let methods = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n";
                self.reply(request, "200 OK", methods, "")
            }
            "DESCRIBE" => {
                let base = format!(
                    "Content-Base: {}/\r\nContent-Type: application/sdp\r\n",
                    request.uri.trim_end_matches('/')
                );
                let sdp = (self.script.description)(self.sdp());
                self.reply_with(request, "200 OK", &base, &sdp)
            }
            "SETUP" => self.set_up(request),
            "PLAY" => {
                seen.played.fetch_add(1, Ordering::SeqCst);
                let info = |track: &str, sender: &Sender, time: u32| {
                    format!("url={}{track};seq={};rtptime={time}", slashed(&request.uri), sender.sequence())
                };
                let first = self.script.first_timestamp;
                let mut infos = info("video", &self.video.sender, first);
                if self.sound.way.is_some() {
                    infos += &format!(",{}", info("sound", &self.sound.sender, sound_time(first, 0)));
                }
                let head =
                    format!("Session: {}\r\nRange: npt=0.000-\r\nRTP-Info: {infos}\r\n", self.session());
                self.reply(request, "200 OK", &head, "")?;
                self.began = Some(Instant::now());
                Ok(())
            }
            "TEARDOWN" => {
                seen.teardowns.fetch_add(1, Ordering::SeqCst);
                self.done = true;
                self.reply(request, "200 OK", "", "")
            }
            _ => self.reply(request, "501 Not Implemented", "", ""),
        }
    }

    fn set_up(&mut self, request: &Request) -> std::io::Result<()> {
        let transport = request.header("transport").unwrap_or_default().to_owned();
        let (track, channel) =
            if request.uri.ends_with("sound") { (&mut self.sound, 2) } else { (&mut self.video, 0) };
        let ssrc = track.sender.ssrc();
        let answer = if transport.contains("TCP") {
            track.way = Some(Way::Interleaved(channel));
            format!("RTP/AVP/TCP;unicast;interleaved={channel}-{};ssrc={ssrc:08X}", channel + 1)
        } else {
            let ports = transport.split("client_port=").nth(1).unwrap_or_default();
            let port: u16 = ports.split(['-', ';']).next().and_then(|port| port.parse().ok()).unwrap_or(0);
            let peer = self.socket.peer_addr()?.ip();
            let own = self.socket.local_addr()?.ip();
            let (rtp, rtcp) = (UdpSocket::bind((own, 0))?, UdpSocket::bind((own, 0))?);
            rtp.connect((peer, port))?;
            rtcp.connect((peer, port + 1))?;
            let (a, b) = (rtp.local_addr()?.port(), rtcp.local_addr()?.port());
            track.way = Some(Way::Udp(rtp, rtcp));
            format!("RTP/AVP;unicast;client_port={port}-{};server_port={a}-{b};ssrc={ssrc:08X}", port + 1)
        };
        let head = format!("Session: {}\r\nTransport: {answer}\r\n", self.session());
        self.reply(request, "200 OK", &head, "")
    }

    fn session(&self) -> String {
        let timeout = self.script.session_timeout.map_or(60, |limit| limit.as_secs());
        format!("12345678;timeout={timeout}")
    }

    fn reply(&mut self, request: &Request, status: &str, head: &str, body: &str) -> std::io::Result<()> {
        self.reply_with(request, status, head, body.as_bytes())
    }

    fn reply_with(
        &mut self,
        request: &Request,
        status: &str,
        head: &str,
        body: &[u8],
    ) -> std::io::Result<()> {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let answer = format!(
            "RTSP/1.0 {status}\r\nCSeq: {}\r\nServer: Farm/1.0\r\n{head}{length}\r\n",
            request.header("cseq").unwrap_or("0"),
        );
        self.socket.write_all(&[answer.as_bytes(), body].concat())
    }

    fn sdp(&self) -> String {
        let film = &self.script.film;
        let encoding = if film.coding == Coding::H264 { "H264" } else { "H265" };
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\na=tool:Farm Camera 1.0\r\na=control:*\r\n\
             m=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 {encoding}/90000\r\na=control:video\r\n"
        );
        if let Some(rate) = self.script.said_rate {
            sdp += &format!("a=framerate:{rate}\r\n");
        }
        if self.script.sets_in_sdp {
            let named = |name: &str, kinds: &[u8]| {
                let sets = film.sets.iter().filter(|set| kinds.contains(&kind(film.coding, set)));
                format!(
                    "{name}={}",
                    sets.map(|set| super::request::base64(set)).collect::<Vec<_>>().join(",")
                )
            };
            sdp += &match film.coding {
                Coding::H264 => {
                    format!("a=fmtp:96 packetization-mode=1;{}\r\n", named("sprop-parameter-sets", &[7, 8]))
                }
                Coding::Hevc => format!(
                    "a=fmtp:96 {};{};{}\r\n",
                    named("sprop-vps", &[32]),
                    named("sprop-sps", &[33]),
                    named("sprop-pps", &[34])
                ),
            };
        }
        if self.script.sound {
            sdp += "m=audio 0 RTP/AVP 8\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:8 PCMA/8000\r\na=control:sound\r\n";
        }
        sdp
    }

    /// Sends what is due.
    fn play(&mut self) -> std::io::Result<()> {
        let Some(began) = self.began else { return Ok(()) };
        if let Some((at, pause)) = self.script.stall
            && self.next_picture == at
            && !self.stalled
        {
            self.stalled = true;
            let until = Instant::now() + pause;
            while Instant::now() < until {
                std::thread::sleep(TURN);
            }
            // It is live: what it saw meanwhile is gone. A keyframe comes next.
            let now = began.elapsed().as_millis() as u64 * self.script.rate / 1_000;
            self.next_picture = now.next_multiple_of(25);
            self.next_sound = began.elapsed().as_millis() as u64 / 20;
        }
        let elapsed = began.elapsed();
        if self.script.reports && self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            if self.script.goodbye_after.is_none_or(|last| self.next_picture <= last) {
                self.report(false)?;
            }
        }
        loop {
            let burst_ends =
                self.next_picture / self.script.burst * self.script.burst + self.script.burst - 1;
            if elapsed < Duration::from_millis(burst_ends * 1_000 / self.script.rate) || self.done {
                break;
            }
            self.picture(self.next_picture)?;
            self.next_picture += 1;
        }
        while self.sound.way.is_some() && elapsed >= Duration::from_millis(self.next_sound * 20) {
            if self.script.silent_after.is_none_or(|last| self.next_picture <= last) {
                let picture = self.next_sound * 20 * self.script.rate / 1_000;
                let shift = (self.script.shift)(picture).unwrap_or(0) * 8 / 90;
                let time =
                    sound_time(self.script.first_timestamp, self.next_sound).wrapping_add(shift as u32);
                let packet = self.sound.sender.packet(time, self.next_sound == 0, &tone(self.next_sound));
                send(&mut self.socket, &mut self.sound, &self.script, packet)?;
            }
            self.next_sound += 1;
        }
        Ok(())
    }

    fn picture(&mut self, number: u64) -> std::io::Result<()> {
        if self.script.silent_after.is_some_and(|last| number > last) {
            return Ok(());
        }
        if self.script.close_after.is_some_and(|last| number > last) {
            self.done = true;
            return Ok(());
        }
        if let Some(last) = self.script.goodbye_after.filter(|last| number > *last) {
            return if number == last + 1 { self.report(true) } else { Ok(()) };
        }
        let (film, base) = match &self.script.then {
            Some((from, film)) if number >= *from => (film.clone(), *from),
            _ => (self.script.film.clone(), 0),
        };
        let round = film.pictures.len() as u64;
        let picture = &film.pictures[((number - base) % round) as usize];
        let shown = (base + (number - base) / round * round) as i64 + picture.shown;
        let timestamp = self.timestamp(number, shown);
        if self.script.garbage_every.is_some_and(|every| number % every == every / 2) {
            for packet in garbage(&mut self.video.sender, timestamp) {
                send(&mut self.socket, &mut self.video, &self.script, packet)?;
            }
        }
        let nals = nals_of(&film, picture, true);
        for packet in self.video.sender.unit(film.coding, timestamp, &nals) {
            send(&mut self.socket, &mut self.video, &self.script, packet)?;
        }
        let nals = picture.nals.to_vec();
        lock(&self.world.sent).push(nals);
        Ok(())
    }

    fn timestamp(&self, number: u64, shown: i64) -> u32 {
        let Some(shift) = (self.script.shift)(number) else { return self.script.first_timestamp };
        let ticks = shown * 90_000 / self.script.rate as i64 + shift;
        self.script.first_timestamp.wrapping_add(ticks as u32)
    }

    /// A sender report of each track, its last if it says goodbye.
    fn report(&mut self, goodbye: bool) -> std::io::Result<()> {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let elapsed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let number = elapsed.as_millis() as u64 * self.script.rate / 1_000;
        let shift = (self.script.shift)(number).unwrap_or(0);
        let video =
            self.script.first_timestamp.wrapping_add((elapsed.as_millis() as i64 * 90 + shift) as u32);
        let sound = sound_time(self.script.first_timestamp, 0)
            .wrapping_add((elapsed.as_millis() as i64 * 8 + shift * 8 / 90) as u32);
        for (track, time) in [(&mut self.video, video), (&mut self.sound, sound)] {
            let mut report = track.sender.report(micros, time);
            if goodbye {
                report.extend([0x81, 203, 0, 1]);
                report.extend(track.sender.ssrc().to_be_bytes());
            }
            match &track.way {
                Some(Way::Interleaved(channel)) => self.socket.write_all(&framed(channel + 1, &report))?,
                Some(Way::Udp(_, rtcp)) => drop(rtcp.send(&report)),
                None => {}
            }
        }
        Ok(())
    }
}

fn sound_time(first: u32, number: u64) -> u32 {
    (first / 7).wrapping_add((number * 160) as u32)
}

fn slashed(uri: &str) -> String {
    format!("{}/", uri.trim_end_matches('/'))
}

fn framed(channel: u8, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'$', channel];
    frame.extend((packet.len() as u16).to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

fn send(socket: &mut TcpStream, track: &mut Track, script: &Script, packet: Vec<u8>) -> std::io::Result<()> {
    track.count += 1;
    let is_nth = |every: Option<u64>| every.is_some_and(|every| track.count % every == every - 1);
    match &track.way {
        Some(Way::Interleaved(channel)) => socket.write_all(&framed(*channel, &packet)),
        Some(Way::Udp(rtp, _)) => {
            if is_nth(script.lose_every) {
                return Ok(());
            }
            if is_nth(script.swap_every) && track.held.is_none() {
                track.held = Some(packet);
                return Ok(());
            }
            // A gateway that is gone answers with an error; the RTSP connection's end tells it too.
            drop(rtp.send(&packet));
            if let Some(held) = track.held.take() {
                drop(rtp.send(&held));
            }
            Ok(())
        }
        None => Ok(()),
    }
}

/// What is no picture: reserved kinds, a unit of nothing but noise, a fragment without a beginning, an empty packet.
fn garbage(sender: &mut Sender, timestamp: u32) -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    let reserved = [&[0x1e][..], &noise].concat();
    let endless = [&[0x7c, 0x05][..], &noise].concat();
    let too_short = [0x18, 0x00];
    [&reserved[..], &endless, &too_short, &[0x1f]]
        .map(|payload| sender.packet(timestamp, false, payload))
        .to_vec()
}

/// What a film's pictures look like in the gateway's outputs: NAL units without parameter sets and delimiters.
pub(crate) fn without_framing(coding: Coding, payload: &[u8]) -> Vec<Vec<u8>> {
    let (mut nals, mut rest) = (Vec::new(), payload);
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (nal, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        let framing = match coding {
            Coding::H264 => matches!(kind(coding, nal), 7..=9),
            Coding::Hevc => matches!(kind(coding, nal), 32..=35),
        };
        if !framing {
            nals.push(nal.to_vec());
        }
        rest = after;
    }
    nals
}

/// The pictures of one round of a film, as [`Camera::sent`] has them.
pub(crate) fn pictures_of(film: &Film) -> Vec<Vec<Vec<u8>>> {
    film.pictures.iter().map(|picture| picture.nals.clone()).collect()
}
