//! `scripts/hw-tests` on what looks like a board: a real sshd, a gateway, and a relay that cuts and gives its power.

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::secs;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

#[test]
fn a_board_by_ssh_runs_what_it_can_and_says_why_not_the_rest() {
    let board = Board::start();
    let more = ["--cases", "boot,push,power_cut,worker_killed,watchdog,refusals,soak", "--soak", "2s"];
    let (report, page) = board.run(&more, &board.relay("on"));
    assert_eq!(
        results(&report),
        [
            ("boot", "skipped"),
            ("push", "ran"),
            ("power_cut", "ran"),
            ("watchdog", "skipped"),
            ("worker_killed", "ran"),
            ("refusals", "skipped"),
            ("soak", "ran")
        ],
        "{report:#}"
    );
    let one = |name: &str| case(&report, name);
    assert_eq!(one("boot")["why"], "a board is flashed by hand");
    let why = one("watchdog")["why"].to_string();
    assert!(why.contains("systemd does not run fieldgate.service there"), "{why}");
    let figures = &one("power_cut")["figures"];
    for track in ["v1", "a1"] {
        assert!(figures["kmp"][track]["acknowledged"].as_u64() > Some(0), "{figures}");
    }
    assert!(
        figures["healthy_after_s"].is_f64() && figures["first_picture_after_kernel_s"].is_f64(),
        "{figures}"
    );
    let soak = &one("soak")["figures"];
    assert!(soak["pictures"].as_u64() > Some(0) && soak["restarts"] == 0, "{soak}");
    assert!(report["target"]["kernel"].as_str().unwrap().starts_with("Linux "), "{report:#}");
    assert!(
        page.contains("4 ran, 0 failed, 3 skipped") && page.contains("a board is flashed by hand"),
        "{page}"
    );
    board.assert_left_as_it_was();
}

#[test]
fn a_case_that_fails_keeps_those_back_that_build_on_it_and_no_others() {
    let board = Board::start();
    let token = std::fs::read_to_string(board.scratch.join("token")).unwrap();
    std::fs::write(board.scratch.join("token"), "fgt_nobody").unwrap();
    let (report, _) = board.run(&["--cases", "boot,push,soak"], &board.relay("on"));
    assert_eq!(results(&report), [("boot", "skipped"), ("push", "failed"), ("soak", "skipped")]);
    assert_eq!(case(&report, "soak")["why"], "it builds on push, and push failed");

    std::fs::write(board.scratch.join("token"), token).unwrap();
    // What it says must be text on the page.
    let broken = "echo '<b>no relay</b>' >&2; exit 3";
    let (report, page) = board.run(&["--cases", "push,power_cut,cuts,encoders"], broken);
    let seen: Vec<_> = results(&report);
    assert_eq!(seen, [("push", "ran"), ("encoders", "ran"), ("power_cut", "failed"), ("cuts", "failed")]);
    let why = case(&report, "power_cut")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("ended with 3: <b>no relay</b>"), "{why}");
    assert!(page.contains("&lt;b&gt;no relay&lt;/b&gt;") && !page.contains("<b>no relay"), "{page}");
    let sizes = case(&report, "encoders")["figures"]["sizes"].clone();
    assert_eq!(sizes.as_object().unwrap().len(), 3, "{sizes}");
}

fn case(report: &Value, name: &str) -> Value {
    let cases = report["cases"].as_array().unwrap();
    cases.iter().find(|one| one["case"] == name).unwrap_or(&Value::Null).clone()
}

fn results(report: &Value) -> Vec<(&str, &str)> {
    let cases = report["cases"].as_array().unwrap();
    cases.iter().map(|one| (one["case"].as_str().unwrap(), one["result"].as_str().unwrap())).collect()
}

/// A gateway, and all by which the runner reaches it.
struct Board {
    scratch: Arc<Scratch>,
    page: SocketAddr,
    rtmp: SocketAddr,
    ssh: u16,
    relay: u16,
    user: String,
    power: Sender<()>,
}

impl Board {
    fn start() -> Board {
        let scratch = Arc::new(Scratch::new());
        let ssh = serve_ssh(scratch.path());
        // Its addresses last from one power cut to the next.
        let [rtmp, page] = [(); 2].map(|()| own_address());
        let config = json!({ "rtmp": { "listen": [rtmp.to_string()] },
                             "admin": { "listen": ["127.0.0.1:0"], "tls": { "listen": [page.to_string()] } } });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = listener.local_addr().unwrap().port();
        let (power, ended) = channel();
        let (made, folder) = (scratch.clone(), scratch.clone());
        let (began, is_on) = channel();
        // The thread that starts a child must last as long as the child may.
        std::thread::spawn(move || {
            let mut gateway = Some(Gateway::start_in(folder.clone(), config.clone(), |_| {}));
            write_token(gateway.as_ref().unwrap(), &folder.join("token"));
            began.send(()).unwrap();
            while let Ok((stream, _)) = listener.accept() {
                if matches!(ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
                    return;
                }
                let mut wish = String::new();
                let mut stream = BufReader::new(stream);
                stream.read_line(&mut wish).unwrap();
                drop(gateway.take());
                if wish.trim() == "on" {
                    gateway.replace(Gateway::start_in(folder.clone(), config.clone(), |_| {}));
                }
                stream.get_mut().write_all(b"done\n").unwrap();
            }
        });
        is_on.recv().expect("a gateway");
        let user = Process::run("id", &["-un"], secs(10)).trim().to_owned();
        Board { scratch: made, page, rtmp, ssh, relay, user, power }
    }

    /// A command that has the relay switch.
    fn relay(&self, wish: &str) -> String {
        let port = self.relay;
        format!(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo {wish} >&3; read -r said <&3; [ $said = done ]'"
        )
    }

    /// The runner's report and page; it ends with 0 if nothing failed.
    fn run(&self, more: &[&str], power_on: &str) -> (Value, String) {
        let file = |name: &str| self.scratch.join(name).to_str().unwrap().to_owned();
        let ssh = format!(
            "ssh -F none -p {} -i {} -o UserKnownHostsFile={}",
            self.ssh,
            file("user"),
            file("known")
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/hw-tests");
        let output = Command::new(script)
            .args(["--target", &format!("ssh:{}@127.0.0.1", self.user), "--ssh", &ssh])
            .args(["--page-at", &format!("https://{}", self.page)])
            .args(["--rtmp-at", &format!("rtmp://{}/live", self.rtmp), "--token-file", &file("token")])
            .args(["--power-off", &self.relay("off"), "--power-on", power_on, "--discharge", "0s"])
            .args(["--json", &file("report"), "--page", &file("page"), "--pictures", "5"])
            .args(more)
            .env("CARGO_TARGET_DIR", self.scratch.path())
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let report = std::fs::read(file("report")).unwrap_or_else(|error| panic!("{error}: {said}"));
        let report: Value = serde_json::from_slice(&report).unwrap();
        let has_failed = results(&report).iter().any(|(_, result)| *result == "failed");
        assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{said}");
        (report, std::fs::read_to_string(file("page")).unwrap())
    }

    /// Nothing of the runner's is in the config.
    fn assert_left_as_it_was(&self) {
        let token = std::fs::read_to_string(self.scratch.join("token")).unwrap();
        let (header, url) =
            (format!("Authorization: Bearer {token}"), format!("https://{}/api/v1/config", self.page));
        let config = Process::run("curl", &["-sSk", "-H", &header, &url], secs(30));
        let config: Value = serde_json::from_str(&config).unwrap();
        assert!(
            config["rtmp"].is_object() && config.get("mountpoints").is_none_or(|all| all == &json!({})),
            "{config}"
        );
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let (power, _) = channel();
        drop(std::mem::replace(&mut self.power, power));
        drop(TcpStream::connect(("127.0.0.1", self.relay)));
    }
}

fn write_token(gateway: &Gateway, file: &Path) {
    let wish = json!({"name": "bench", "role": "admin"}).to_string();
    let json = [("Content-Type", "application/json")];
    let made = gateway.request("POST", "/api/v1/tokens", &json, wish.as_bytes());
    assert!([200, 201].contains(&made.status), "{}", made.text());
    std::fs::write(file, made.json()["token"].as_str().expect("the token's text")).unwrap();
}

/// Keys that nobody else has, and an sshd for each connection; its port.
fn serve_ssh(folder: &Path) -> u16 {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for name in ["host", "user"] {
        Process::run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file(name)], secs(30));
    }
    std::fs::rename(folder.join("user.pub"), folder.join("authorized")).unwrap();
    let config = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n\
         PermitRootLogin prohibit-password\nLogLevel ERROR\n",
        file("host"),
        file("authorized")
    );
    std::fs::write(folder.join("sshd_config"), config).unwrap();
    // Debian's service makes it when it starts, which it does not here.
    drop(std::fs::create_dir("/run/sshd"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = std::fs::read_to_string(folder.join("host.pub")).unwrap();
    std::fs::write(folder.join("known"), format!("[127.0.0.1]:{port} {key}")).unwrap();
    let config = file("sshd_config");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let [from, to]: [OwnedFd; 2] = [stream.try_clone().unwrap().into(), stream.into()];
            let mut sshd = Command::new("/usr/sbin/sshd");
            let started = sshd.args(["-i", "-e", "-f", &config]).stdin(from).stdout(to).spawn();
            let mut child = started.expect("sshd: scripts/setup installs it");
            std::thread::spawn(move || child.wait());
        }
    });
    port
}
