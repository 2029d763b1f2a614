//! The client against a camera in memory, with the oddities of real ones by switches.

use super::super::encoder::VideoCodec;
use super::super::media::main_and_sub;
use super::super::xml;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

const NOW: i64 = 1_795_226_400_000;

macro_rules! fixture {
    ($name:literal) => {
        std::str::from_utf8(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/onvif/", $name)))
            .unwrap()
    };
}

#[derive(Clone, Copy, PartialEq)]
enum Auth {
    Open,
    Token,
    Digest,
    Basic,
}

/// A camera and what is odd about it.
struct Fake {
    auth: Auth,
    media1: bool,
    media2: bool,
    /// Milliseconds by which its clock is off.
    offset: i64,
    /// The host that it names in its addresses.
    names: &'static str,
    password: &'static str,
    /// Calls without a login get HTTP 400 with an empty body.
    rude: bool,
    /// A new nonce for every call, as if it were a first login.
    one_time_nonces: bool,
    old: bool,
    no_profiles: bool,
    redirects: bool,
    /// Only administrators may ask for these.
    forbids: &'static [&'static str],
    nonce: u32,
    bad_logins: u32,
    calls: Vec<(String, String, bool)>,
    set: Option<String>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            auth: Auth::Token,
            media1: true,
            media2: true,
            offset: 0,
            names: "10.0.0.7",
            password: "s3cret",
            rude: false,
            one_time_nonces: false,
            old: false,
            no_profiles: false,
            redirects: false,
            forbids: &[],
            nonce: 0,
            bad_logins: 0,
            calls: Vec::new(),
            set: None,
        }
    }
}

type Answer = (u16, Vec<String>, String);

fn envelope(body: &str) -> String {
    format!("<e:Envelope xmlns:e='x'><e:Body>{body}</e:Body></e:Envelope>")
}

fn fault(code: &str) -> String {
    envelope(&format!(
        "<e:Fault><e:Code><e:Value>e:Sender</e:Value><e:Subcode><e:Value>ter:{code}</e:Value></e:Subcode></e:Code>\
         <e:Reason><e:Text>{code}</e:Text></e:Reason></e:Fault>"
    ))
}

impl Fake {
    fn token_is_right(&self, root: &Element) -> Option<bool> {
        let token = root.at(&["Header", "Security", "UsernameToken"])?;
        let created = token.text_at(&["Created"])?;
        // Five minutes off are too many.
        let theirs = super::super::civil::timestamp(NOW + self.offset);
        let nonce = STANDARD.decode(token.text_at(&["Nonce"])?).ok()?;
        let mut hash = Sha1::new();
        hash.update(nonce);
        hash.update(created);
        hash.update(self.password);
        let right = STANDARD.encode(hash.finalize());
        Some(token.text_at(&["Password"]) == Some(&right) && created[..16] == theirs[..16])
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let root = xml::parse(call.body.as_bytes()).unwrap();
        let wanted = root.child("Body").unwrap().children[0].clone();
        self.calls.push((wanted.name.clone(), call.url.to_string(), call.with_login));
        assert!(!call.body.contains(self.password), "the password never travels in a message");
        if self.redirects {
            return (302, Vec::new(), String::new());
        }
        let is_open =
            matches!(wanted.name.as_str(), "GetSystemDateAndTime" | "GetServices" | "GetCapabilities");
        let digest = format!("Digest realm=\"cam\", nonce=\"n{}\", qop=\"auth\", algorithm=MD5", self.nonce);
        let verdict = match self.auth {
            _ if is_open && !self.rude => Some(true),
            Auth::Open => Some(true),
            Auth::Token => self.token_is_right(&root),
            Auth::Digest => call.authorization.as_ref().map(|sent| {
                let Some(Challenge::Digest(challenge)) =
                    http_auth::challenges(std::iter::once(digest.as_str())).pop()
                else {
                    panic!()
                };
                let credentials =
                    Credentials { user: "admin".to_owned(), password: self.password.to_owned() };
                let field = |name: &str| {
                    let at = sent.find(name).unwrap() + name.len();
                    sent[at..].trim_start_matches(['=', '"']).split([',', '"']).next().unwrap().to_owned()
                };
                let count = u32::from_str_radix(&field("nc="), 16).unwrap();
                let cnonce = field("cnonce");
                let proof = Proof { method: "POST", uri: &call.url.target, count, cnonce: &cnonce };
                *sent == challenge.authorization(&credentials, proof)
            }),
            Auth::Basic => call.authorization.as_ref().map(|sent| {
                let credentials =
                    Credentials { user: "admin".to_owned(), password: self.password.to_owned() };
                *sent == http_auth::basic(&credentials)
            }),
        };
        if self.auth == Auth::Digest && self.one_time_nonces && verdict.is_some() {
            self.nonce += 1;
        }
        if verdict != Some(true) {
            self.bad_logins += u32::from(verdict.is_some());
            let digest =
                format!("Digest realm=\"cam\", nonce=\"n{}\", qop=\"auth\", algorithm=MD5", self.nonce);
            return match self.auth {
                _ if self.rude && verdict.is_none() => (400, Vec::new(), String::new()),
                Auth::Digest => (401, vec![digest], String::new()),
                Auth::Basic => (401, vec!["Basic realm=\"cam\"".to_owned()], String::new()),
                _ => (400, Vec::new(), fault("NotAuthorized")),
            };
        }
        if self.forbids.contains(&wanted.name.as_str()) {
            return (403, Vec::new(), fault("NotAuthorized"));
        }
        self.serve(&wanted)
    }

    fn serve(&mut self, wanted: &Element) -> Answer {
        let host = self.names;
        let body = match wanted.name.as_str() {
            "GetSystemDateAndTime" => {
                let ([year, month, day], [hour, minute, second]) =
                    super::super::civil::from_unix((NOW + self.offset) / 1_000);
                envelope(&format!(
                    "<r><SystemDateAndTime><UTCDateTime><Time><Hour>{hour}</Hour><Minute>{minute}</Minute>\
                     <Second>{second}</Second></Time><Date><Year>{year}</Year><Month>{month}</Month><Day>{day}</Day>\
                     </Date></UTCDateTime></SystemDateAndTime></r>"
                ))
            }
            "GetServices" if self.old => return (500, Vec::new(), fault("ActionNotSupported")),
            "GetServices" => {
                let one = "<Service><Namespace>http://www.onvif.org/ver10/media/wsdl</Namespace><XAddr>http://HOST/onvif/media</XAddr></Service>";
                let two = "<Service><Namespace>http://www.onvif.org/ver20/media/wsdl</Namespace><XAddr>http://HOST/onvif/media2</XAddr></Service>";
                let list = [(self.media1, one), (self.media2, two)];
                let list: String = list.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect();
                envelope(&format!("<r>{}</r>", list.replace("HOST", host)))
            }
            "GetCapabilities" if self.media1 => envelope(&format!(
                "<r><Capabilities><Media><XAddr>http://{host}/onvif/media</XAddr></Media></Capabilities></r>"
            )),
            "GetCapabilities" => envelope("<r/>"),
            "GetDeviceInformation" => envelope(
                "<r><Manufacturer>Field</Manufacturer><Model>FC-200</Model><FirmwareVersion>1.2</FirmwareVersion>\
                 <SerialNumber>SN42</SerialNumber></r>",
            ),
            "GetNetworkInterfaces" => envelope(
                "<r><NetworkInterfaces><Info><HwAddress>00:11:22:AA:BB:CC</HwAddress></Info></NetworkInterfaces></r>",
            ),
            "GetProfiles" if self.no_profiles => envelope("<r/>"),
            "GetProfiles" if wanted.child("Type").is_some() && self.media2 => {
                fixture!("media2-profiles.xml").to_owned()
            }
            "GetProfiles" if wanted.child("Type").is_none() && self.media1 => {
                fixture!("media1-profiles.xml").to_owned()
            }
            "GetStreamUri" => {
                let profile = wanted.text_at(&["ProfileToken"]).unwrap();
                envelope(&format!("<r><Uri>rtsp://u:p@{host}:554/{profile}</Uri></r>"))
            }
            "GetSnapshotUri" => {
                envelope(&format!("<r><MediaUri><Uri>http://{host}/snap.jpg</Uri></MediaUri></r>"))
            }
            "GetVideoEncoderConfigurationOptions" => {
                envelope("<r><Options GovLengthRange='1 100'><Encoding>H264</Encoding></Options></r>")
            }
            "SetVideoEncoderConfiguration" => {
                self.set = Some(format!("{wanted:?}"));
                envelope("<r/>")
            }
            "SystemReboot" | "SetSystemDateAndTime" => envelope("<r/>"),
            _ => return (400, Vec::new(), fault("ActionNotSupported")),
        };
        (200, Vec::new(), body)
    }

    fn times(&self, name: &str) -> usize {
        self.calls.iter().filter(|(call, _, _)| call == name).count()
    }
}

fn device() -> ServiceUrl {
    ServiceUrl::device_service("10.0.0.7".parse().unwrap(), 80)
}

fn admin(password: &str) -> Option<Credentials> {
    Some(Credentials { user: "admin".to_owned(), password: password.to_owned() })
}

fn drive(client: &mut Client, camera: &mut Fake) {
    for round in 0..200_u8 {
        match client.poll_action(Moment { unix_millis: NOW, random: [round; 16] }) {
            Action::Done => return,
            Action::Call(call) => {
                assert_eq!(call.url.host, device().host, "only the camera is asked");
                let (status, challenges, body) = camera.answer(&call);
                client.handle_reply(Reply { status, challenges: &challenges, body: body.as_bytes() }, NOW);
            }
        }
    }
    panic!("the client never ends");
}

fn ask(camera: &mut Fake, password: &str, basic: bool, wish: Wish) -> Result<Camera, ClientError> {
    let mut client = Client::new(device(), admin(password), basic, wish);
    drive(&mut client, camera);
    client.finish()
}

fn survey(camera: &mut Fake) -> Camera {
    ask(camera, "s3cret", false, Wish::Survey).unwrap()
}

fn assert_complete(found: &Camera) {
    assert_eq!(found.identity.model.as_deref(), Some("FC-200"));
    assert_eq!(found.identity.macs, ["00:11:22:aa:bb:cc"]);
    let (main, sub) = main_and_sub(&found.profiles);
    let url = |profile: Option<&Profile>| profile.unwrap().stream.as_ref().unwrap().to_string();
    assert_eq!((url(main).as_str(), url(sub).as_str()), ("rtsp://10.0.0.7/main", "rtsp://10.0.0.7/sub"));
    assert_eq!(main.unwrap().snapshot.as_ref().unwrap().to_string(), "http://10.0.0.7/snap.jpg");
}

#[test]
fn a_camera_is_surveyed_with_one_login() {
    for auth in [Auth::Token, Auth::Digest] {
        let mut camera = Fake { auth, ..Fake::default() };
        let found = survey(&mut camera);
        assert_complete(&found);
        assert_eq!((found.login, found.gaps.as_slice(), camera.bad_logins), (Login::Accepted, &[][..], 0));
        assert_eq!(found.time_offset_millis, Some(0));
        assert_eq!(
            found.profiles[0].video.as_ref().unwrap().codec,
            Some(VideoCodec::Hevc),
            "media 2 is preferred"
        );
        assert_eq!(camera.times("GetDeviceInformation"), 2, "once to learn how to log in");
    }
}

#[test]
fn an_open_camera_never_sees_the_login() {
    let mut camera = Fake { auth: Auth::Open, ..Fake::default() };
    let found = survey(&mut camera);
    assert_complete(&found);
    assert_eq!(found.login, Login::Unused);
    assert!(camera.calls.iter().all(|(_, _, with_login)| !with_login));
}

#[test]
fn a_wrong_password_is_sent_once() {
    for auth in [Auth::Token, Auth::Digest] {
        let mut camera = Fake { auth, ..Fake::default() };
        let found = ask(&mut camera, "wrong", false, Wish::Survey).unwrap();
        assert_eq!((found.login, camera.bad_logins), (Login::Refused, 1));
        assert!(found.gaps.contains(&Gap::LoginRefused));
        assert_eq!(camera.calls.iter().filter(|(_, _, with_login)| *with_login).count(), 1);
        let mut camera = Fake { auth, ..Fake::default() };
        assert_eq!(ask(&mut camera, "wrong", false, Wish::Reboot), Err(ClientError::LoginRefused));
        assert_eq!((camera.times("SystemReboot"), camera.bad_logins), (0, 1));
    }
}

#[test]
fn a_clock_that_is_years_off_does_not_spoil_the_login() {
    for years in [-11, 3] {
        let offset = years * 365 * 86_400_000;
        let mut camera = Fake { offset, ..Fake::default() };
        let found = survey(&mut camera);
        assert_complete(&found);
        assert_eq!(found.time_offset_millis, Some(offset));
    }
}

#[test]
fn basic_goes_out_only_with_consent() {
    let mut camera = Fake { auth: Auth::Basic, ..Fake::default() };
    let found = survey(&mut camera);
    assert_eq!((found.login, camera.bad_logins), (Login::Unused, 0));
    assert!(found.gaps.contains(&Gap::BasicNeedsConsent));
    assert!(camera.calls.iter().all(|(_, _, with_login)| !with_login));
    let found = ask(&mut camera, "s3cret", true, Wish::Survey).unwrap();
    assert_complete(&found);
    let mut camera = Fake { auth: Auth::Basic, ..Fake::default() };
    let secure = ServiceUrl { scheme: super::super::Scheme::Https, port: 443, ..device() };
    let mut client = Client::new(secure, admin("s3cret"), false, Wish::Reboot);
    drive(&mut client, &mut camera);
    assert_eq!(client.finish().unwrap().login, Login::Accepted, "over TLS it may");
}

#[test]
fn without_a_login_it_says_that_one_is_wanted() {
    let mut camera = Fake { offset: 5_000, ..Fake::default() };
    let mut client = Client::new(device(), None, false, Wish::Survey);
    drive(&mut client, &mut camera);
    let found = client.finish().unwrap();
    assert_eq!(found.gaps, [Gap::CredentialsWanted]);
    assert_eq!((found.time_offset_millis, found.login), (Some(5_000), Login::Unused));
}

#[test]
fn cameras_with_one_media_service_or_none_are_taken() {
    let found = survey(&mut Fake { media2: false, ..Fake::default() });
    assert_complete(&found);
    assert_eq!(found.profiles[0].version, MediaVersion::One);
    let found = survey(&mut Fake { media1: false, ..Fake::default() });
    assert_complete(&found);
    assert_eq!(found.profiles[0].version, MediaVersion::Two);
    let mut old = Fake { old: true, media2: false, ..Fake::default() };
    assert_complete(&survey(&mut old));
    assert_eq!((old.times("GetServices"), old.times("GetCapabilities")), (1, 1));
    let none = survey(&mut Fake { media1: false, media2: false, ..Fake::default() });
    assert!(none.gaps.contains(&Gap::NoProfiles) && none.profiles.is_empty());
    let empty = survey(&mut Fake { no_profiles: true, ..Fake::default() });
    assert_eq!(empty.gaps, [Gap::NoProfiles]);
}

#[test]
fn an_address_of_another_machine_is_replaced_by_the_cameras_own() {
    for names in ["192.168.1.64", "127.0.0.1", "169.254.169.254", "localhost", "rebind.example"] {
        let mut camera = Fake { names, ..Fake::default() };
        let found = survey(&mut camera);
        assert_complete(&found);
        assert!(
            found.gaps.iter().any(|gap| matches!(gap, Gap::ForeignAddress { host, .. } if host == names)),
            "{:?}",
            found.gaps
        );
        assert!(camera.calls.iter().all(|(_, url, _)| url.starts_with("http://10.0.0.7/")));
    }
}

#[test]
fn a_plain_400_to_calls_without_a_login_leads_to_the_token() {
    let mut camera = Fake { rude: true, ..Fake::default() };
    assert_complete(&survey(&mut camera));
    assert_eq!(camera.bad_logins, 0);
}

#[test]
fn nonces_that_are_good_for_one_call_are_renewed_once_each() {
    let mut camera = Fake { auth: Auth::Digest, one_time_nonces: true, ..Fake::default() };
    let found = survey(&mut camera);
    assert_complete(&found);
    assert_eq!(
        (found.login, camera.bad_logins),
        (Login::Accepted, 1),
        "an old nonce is used once, then never again"
    );
    let mut camera = Fake { auth: Auth::Digest, one_time_nonces: true, ..Fake::default() };
    ask(&mut camera, "wrong", false, Wish::Survey).unwrap();
    assert_eq!(camera.bad_logins, 1, "with a wrong password a new nonce is no reason to try again");
}

#[test]
fn what_the_account_may_not_do_is_no_wrong_login() {
    let mut camera = Fake { forbids: &["GetSnapshotUri"], ..Fake::default() };
    let found = survey(&mut camera);
    assert_eq!(found.login, Login::Accepted);
    assert!(found.profiles.iter().all(|profile| profile.stream.is_some() && profile.snapshot.is_none()));
    let mut camera = Fake { forbids: &["GetStreamUri"], ..Fake::default() };
    let found = survey(&mut camera);
    assert!(found.gaps.contains(&Gap::NotPermitted("GetStreamUri")));
    let mut camera = Fake { forbids: &["SystemReboot"], ..Fake::default() };
    let error = ask(&mut camera, "s3cret", false, Wish::Reboot).unwrap_err();
    assert_eq!(error.to_string(), "the account may not do SystemReboot");
}

#[test]
fn reboot_and_clock_are_done_with_a_proven_login() {
    let mut camera = Fake { offset: -86_400_000, ..Fake::default() };
    ask(&mut camera, "s3cret", false, Wish::Reboot).unwrap();
    assert_eq!(camera.times("SystemReboot"), 1);
    let found = ask(&mut camera, "s3cret", false, Wish::SetClock).unwrap();
    assert_eq!((camera.times("SetSystemDateAndTime"), found.time_offset_millis), (1, Some(0)));
}

#[test]
fn an_encoder_is_set_within_its_options_and_read_anew() {
    let wish = EncoderWish { profile: "sub".to_owned(), gop: Some(50), ..EncoderWish::default() };
    let mut camera = Fake::default();
    let found = ask(&mut camera, "s3cret", false, Wish::SetEncoder(wish.clone())).unwrap();
    let set = camera.set.clone().unwrap();
    assert!(set.contains("ve-sub") && set.contains("(\"GovLength\", \"50\")"), "{set}");
    assert!(found.profiles.iter().all(|profile| profile.stream.is_some()));
    let too_long = EncoderWish { gop: Some(101), ..wish.clone() };
    let error = ask(&mut Fake::default(), "s3cret", false, Wish::SetEncoder(too_long)).unwrap_err();
    assert_eq!(error.to_string(), "gop must be 1 to 100 for this camera, not 101");
    let nobody = EncoderWish { profile: "third".to_owned(), ..wish };
    let error = ask(&mut Fake::default(), "s3cret", false, Wish::SetEncoder(nobody)).unwrap_err();
    assert_eq!(error, ClientError::Wish(WishError::NoProfile("third".to_owned())));
}

#[test]
fn redirects_are_not_followed_and_silence_ends_it() {
    let mut camera = Fake { redirects: true, ..Fake::default() };
    let found = survey(&mut camera);
    assert!(
        found.gaps.iter().any(|gap| gap.to_string().contains("redirects (HTTP 302), which is not followed"))
    );
    let mut client = Client::new(device(), admin("s3cret"), false, Wish::Survey);
    let moment = Moment { unix_millis: NOW, random: [0; 16] };
    assert!(matches!(client.poll_action(moment), Action::Call(_)));
    client.handle_failure(CallFailure::Unreachable("refused".to_owned()));
    assert_eq!(client.poll_action(moment), Action::Done);
    assert!(matches!(client.finish(), Err(ClientError::NoAnswer(CallFailure::Unreachable(_)))));
}

#[test]
fn a_login_whose_answer_is_lost_is_not_sent_again() {
    let mut client = Client::new(device(), admin("s3cret"), false, Wish::Survey);
    let mut camera = Fake::default();
    loop {
        match client.poll_action(Moment { unix_millis: NOW, random: [1; 16] }) {
            Action::Done => break,
            Action::Call(call) if call.with_login => {
                client.handle_failure(CallFailure::Unusable("no answer".to_owned()));
            }
            Action::Call(call) => {
                let (status, challenges, body) = camera.answer(&call);
                client.handle_reply(Reply { status, challenges: &challenges, body: body.as_bytes() }, NOW);
            }
        }
    }
    assert_eq!(client.login(), Login::Undecided);
}
