//! Certificates on both sides, made by openssl: the admin plane asks for them, a broker asks the gateway, and a server of a
//! fleet shows one of its own authority.

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::mosquitto::Mosquitto;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use fieldgate_fleet::{Draft, SigningKey};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Signs certificates.
struct Authority<'a> {
    folder: &'a Path,
    cert: PathBuf,
    key: PathBuf,
}

fn openssl(args: &[&str]) {
    Process::run("openssl", args, secs(60));
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Path, name: &str) -> Self {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        let subject = format!("/CN={name}");
        let args =
            ["req", "-x509", "-subj", &subject, "-days", "30", "-keyout", text(&key), "-out", text(&cert)];
        openssl(&[&args[..], &NEW_KEY].concat());
        Authority { folder, cert, key }
    }

    /// A certificate and its key, for localhost and whoever shows it.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let (request, key, cert, names) = (file("csr"), file("key"), file("crt"), file("names"));
        std::fs::write(&names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let subject = format!("/CN={name}");
        let args = ["req", "-new", "-subj", &subject, "-keyout", text(&key), "-out", text(&request)];
        openssl(&[&args[..], &NEW_KEY].concat());
        let signing =
            ["x509", "-req", "-in", text(&request), "-CA", text(&self.cert), "-CAkey", text(&self.key)];
        let more = ["-CAcreateserial", "-days", "30", "-extfile", text(&names), "-out", text(&cert)];
        openssl(&[&signing[..], &more].concat());
        // mosquitto has a user of its own.
        rustix::fs::chmod(&key, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
        (cert, key)
    }
}

/// What curl gets: the status, or none where no connection comes about.
fn ask(address: SocketAddr, shown: Option<&(PathBuf, PathBuf)>) -> Option<String> {
    let url = format!("https://{address}/healthz");
    let mut args = vec!["-sSk", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", &url];
    if let Some((cert, key)) = shown {
        args.extend(["--cert", text(cert), "--key", text(key)]);
    }
    let mut curl = Process::start("curl", &args);
    curl.end_within(secs(60)).success().then(|| curl.output().trim().to_owned())
}

#[test]
fn without_a_certificate_of_the_right_authority_nobody_gets_through_and_new_authorities_count_at_once() {
    let scratch = Arc::new(Scratch::new());
    let (ours, other) = (Authority::new(scratch.path(), "ours"), Authority::new(scratch.path(), "other"));
    let (good, stranger) = (ours.sign("technician"), other.sign("stranger"));
    let trusted = scratch.join("trusted.pem");
    std::fs::copy(&ours.cert, &trusted).unwrap();
    let tls = json!({"listen": ["127.0.0.1:0"], "client_ca": trusted, "reload_interval": "1s"});
    let mut gateway = Gateway::start(json!({"admin": {"listen": ["127.0.0.1:0"], "tls": tls}}));
    let address = gateway.admin_tls.expect("TLS");
    assert_eq!(ask(address, None), None, "nothing to show");
    assert_eq!(ask(address, Some(&stranger)), None, "of another authority");
    assert_eq!(ask(address, Some(&good)).as_deref(), Some("200"));
    // The certificate lets through, and is nobody: here nobody has claimed the gateway yet.
    let url = format!("https://{address}/api/v1/config");
    let args = [
        "-sSk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cert",
        text(&good.0),
        "--key",
        text(&good.1),
        &url,
    ];
    assert_eq!(Process::run("curl", &args, secs(60)).trim(), "403");

    // A file that holds no certificate leaves the one before in force, and is told.
    std::fs::write(&trusted, "nothing").unwrap();
    wait::until_true("the fault to be told", secs(30), || gateway.process().log().contains("is not used"));
    assert_eq!(ask(address, Some(&good)).as_deref(), Some("200"));
    // Another authority counts without a restart, and the one before does not any more.
    std::fs::copy(&other.cert, &trusted).unwrap();
    wait::until_true("the new authority", secs(30), || {
        ask(address, Some(&stranger)).as_deref() == Some("200")
    });
    assert_eq!(ask(address, Some(&good)), None);
    gateway.assert_running();
}

#[test]
fn clients_certificates_are_provisional_and_go_back_when_they_lock_out() {
    let scratch = Arc::new(Scratch::new());
    let ours = Authority::new(scratch.path(), "ours");
    let (plain, port) = (own_address().port(), own_address().port());
    let at = |port: u16| json!([format!("127.0.0.1:{port}")]);
    let config = json!({"admin": {"listen": at(plain), "tls": {"listen": at(port)}}});
    let gateway = Gateway::start_in(scratch.clone(), config, |command| {
        command.args(["--confirm-within", "4s"]);
    });
    let secret = std::fs::read_to_string(gateway.state().join("access/local.token")).unwrap();
    let (patch, bearer) =
        (json!({"admin": {"tls": {"client_ca": ours.cert}}}), format!("Authorization: Bearer {secret}"));
    let url = format!("http://127.0.0.1:{plain}/api/v1/config");
    let patch = patch.to_string();
    let kind = "Content-Type: application/merge-patch+json";
    let args = ["-sS", "-X", "PATCH", "-H", &bearer, "-H", "If-Match: *", "-H", kind, "-d", &patch, &url];
    // The plane that is changed may end before it has answered; what becomes of the change is in the status.
    Process::start("curl", &args).end_within(secs(60));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait::until_true("the handshake to be refused", secs(30), || ask(address, None).is_none());
    wait::until_true("the way back", secs(60), || ask(address, None).as_deref() == Some("200"));
    assert!(gateway.config().0["admin"]["tls"]["client_ca"].is_null());
    assert!(gateway.status()["config"]["rolled_back"].is_object());
}

/// A broker that takes gateways with a certificate only, beside a plain port for the test.
fn broker(scratch: &Arc<Scratch>, clients: &Authority<'_>, own: &(PathBuf, PathBuf)) -> (Mosquitto, u16) {
    let secure = own_address().port();
    let more = format!(
        "listener {secure} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
        text(&clients.cert),
        text(&own.0),
        text(&own.1)
    );
    (Mosquitto::at(own_address(), scratch.clone(), &more), secure)
}

#[test]
fn a_broker_knows_the_gateway_by_its_certificate_and_nobody_else() {
    let scratch = Arc::new(Scratch::new());
    let ours = Authority::new(scratch.path(), "ours");
    let other = Authority::new(scratch.path(), "other");
    let (server, device, stranger) = (ours.sign("broker"), ours.sign("device"), other.sign("stranger"));
    let (broker, port) = broker(&scratch, &ours, &server);
    let heard = broker.listen("fieldgate/#");
    let with = |(cert, key): &(PathBuf, PathBuf), ca: &Path| {
        json!({"fleet": {"mqtt": {
            "url": format!("mqtts://localhost:{port}"), "ca": ca, "cert": cert, "key": key,
            "spread": "0s", "status_interval": "2s",
        }}})
    };
    let gateway = Gateway::start(with(&device, &ours.cert));
    let id = gateway.get("/api/v1/fleet").json()["device"].as_str().unwrap().to_owned();
    heard.wait_for("presence", &format!("{id}/presence"), |it| it == "online");
    assert_eq!(gateway.get("/api/v1/fleet").json()["mqtt"]["connected"], true);

    for (shown, ca, why) in
        [(&stranger, &ours.cert, "the broker refuses"), (&device, &other.cert, "we refuse the broker")]
    {
        let gateway = Gateway::start(with(shown, ca));
        wait::until_true(why, secs(60), || gateway.get("/api/v1/fleet").json()["mqtt"]["cause"].is_string());
        assert_eq!(gateway.get("/api/v1/fleet").json()["mqtt"]["connected"], false, "{why}");
    }
}

/// A web server with one document over TLS; tells its port.
const WEB: &str = "import http.server, ssl, sys
class Document(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(sys.argv[3], 'rb').read()
        self.send_response(200); self.send_header('ETag', '\"1\"')
        self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Document)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True); server.serve_forever()";

#[test]
fn bundles_are_pulled_from_a_server_of_the_fleets_own_authority_alone() {
    let scratch = Arc::new(Scratch::new());
    let (ours, other) = (Authority::new(scratch.path(), "ours"), Authority::new(scratch.path(), "other"));
    let (cert, key) = ours.sign("fleet");
    let manager = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = fieldgate_model::Timestamp::from_unix_millis(now as i64);
    let draft = json!({
        "number": 1, "issued": now, "expires": now.plus(Duration::from_secs(3_600)), "to": {"groups": ["all"]},
        "patch": {"mountpoints": {"new": {"source": {"kind": "publish"}}}},
    });
    let bundle = serde_json::from_value::<Draft>(draft).unwrap().sign("fleet-1", &manager).unwrap();
    let document = scratch.join("bundle");
    std::fs::write(&document, bundle).unwrap();
    let mut web = Process::start("python3", &["-c", WEB, text(&cert), text(&key), text(&document)]);
    let port: u16 = wait::until("the server's port", secs(60), || {
        web.assert_running();
        web.output().trim().parse().ok()
    });
    let with = |ca: &Path| {
        let pull = json!({"url": format!("https://localhost:{port}/x"), "ca": ca, "interval": "10s"});
        let gateway = Gateway::start(json!({"fleet": {"pull": pull}}));
        let ring = json!({"fleet-1": manager.public()}).to_string();
        let headers = [("Content-Type", "application/json"), ("If-Match", "*")];
        assert_eq!(gateway.request("PUT", "/api/v1/fleet/keys", &headers, ring.as_bytes()).status, 200);
        gateway
    };
    let view = |gateway: &Gateway| -> Value { gateway.get("/api/v1/fleet").json() };
    let (trusts, distrusts) = (with(&ours.cert), with(&other.cert));
    wait::until_true("the change", secs(90), || trusts.config().0["mountpoints"]["new"].is_object());
    wait::until_true("the refusal", secs(90), || view(&distrusts)["pull"]["cause"].is_string());
    assert!(distrusts.config().0["mountpoints"]["new"].is_null(), "{}", view(&distrusts));
}
