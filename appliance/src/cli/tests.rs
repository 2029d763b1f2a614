use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_explains_every_command_and_flag() {
    let mut command = Cli::command();
    let help = command.render_long_help().to_string();
    for word in ["run", "check", "plan", "devices", "version", "rtmp://HOST/live/NAME?key=KEY"] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
    assert!(!help.contains("worker"));
    for command in command.get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for argument in command
            .get_arguments()
            .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        {
            assert!(
                argument.get_help().is_some(),
                "{} {} has no help",
                command.get_name(),
                argument.get_id()
            );
        }
    }
}

#[test]
fn run_takes_what_it_documents() {
    let cli = Cli::try_parse_from([
        "fieldgate",
        "run",
        "--state",
        "/s",
        "--config",
        "/c.json",
        "--replace",
        "--rtmp-listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--confirm-within",
        "5s",
        "--log",
        "debug",
        "--log-format",
        "json",
    ])
    .unwrap();
    let Command::Run(run) = cli.command else { panic!("not run") };
    assert_eq!(run.rtmp_listen.len(), 2);
    assert_eq!(run.confirm_within, Span::from_secs(5));
    assert!(Cli::try_parse_from(["fieldgate", "run", "--replace"]).is_err(), "--replace needs a file");
    let Command::Run(run) = Cli::try_parse_from(["fieldgate", "run"]).unwrap().command else {
        panic!("not run")
    };
    assert_eq!(run.state, Path::new("/var/lib/fieldgate"));
}

/// A config file of its own, removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fieldgate-cli-{name}-{}.json", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn inspect(&self, json: bool) -> Inspect {
        Inspect { config: self.0.clone(), json }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn shown(work: impl FnOnce(&mut dyn Write) -> io::Result<ExitCode>) -> (String, bool) {
    let mut out = Vec::new();
    let code = work(&mut out).unwrap();
    (String::from_utf8(out).unwrap(), format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
}

#[test]
fn check_says_all_problems_with_their_paths() {
    let file =
        File::new("bad", r#"{"rtmp": {"lisen": []}, "mountpoints": {"a": {"source": {"kind": "rtsp"}}}}"#);
    let (text, ok) = shown(|out| check(&file.inspect(false), out));
    assert!(!ok);
    assert_eq!(
        text,
        "mountpoints.a.source.url: is missing\nrtmp.lisen: there is no such setting (did you mean listen?)\n"
    );
    let (json, _) = shown(|out| check(&file.inspect(true), out));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["problems"][0]["path"], "mountpoints.a.source.url");
}

#[test]
fn check_and_plan_take_a_good_config() {
    let file = File::new("good", r#"{"mountpoints": {"demo": {"source": {"kind": "test"}}}}"#);
    let (text, ok) = shown(|out| check(&file.inspect(false), out));
    assert!(ok && text.ends_with("no problems, 1 mountpoints\n"), "{text}");
    let (text, ok) = shown(|out| plan(&file.inspect(false), false, out));
    assert!(ok && text.contains("video    transcode raw -> h264: the test picture is drawn here"), "{text}");
    let (json, _) = shown(|out| plan(&file.inspect(true), false, out));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["mountpoints"][0]["source"]["video"]["action"],
        "transcode"
    );
}

/// The example of the first release's requirements, as it stands.
const EXAMPLE: &str = r#"{
  "rtmp":  { "listen": ["127.0.0.1:1935"] },
  "admin": { "listen": ["127.0.0.1:8080"] },
  "mountpoints": {
    "yard": { "source": { "kind": "publish", "key": "s3cret" },
              "push": [ { "url": "rtmp://127.0.0.1:2935/live/yard" },
                        { "url": "kmp://127.0.0.1:6543", "channel_id": "yard" } ],
              "play": { "key": "v1ew" } },
    "gate": { "source": { "kind": "rtsp", "url": "rtsps://user:pass@127.0.0.1:8554/main" } },
    "bay":  { "source": { "kind": "v4l2", "device": "/dev/video0" } },
    "demo": { "source": { "kind": "test" } },
    "far":  { "source": { "kind": "pull", "url": "rtmp://127.0.0.1:3935/live/far" } },
    "s*":   { "source": { "kind": "publish" }, "max": 64,
              "push": [ { "url": "rtmp://127.0.0.1:2935/live/{name}" } ] }
  }
}"#;

#[test]
fn the_example_is_good_and_what_it_asks_for_in_vain_is_said() {
    let file = File::new("example", EXAMPLE);
    let (text, ok) = shown(|out| check(&file.inspect(false), out));
    assert!(ok && text.ends_with("no problems, 6 mountpoints\n"), "{text}");
    let (json, _) = shown(|out| check(&file.inspect(true), out));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let notice = &json["notices"][0]["path"];
    let in_vain = cfg!(not(feature = "gst"));
    assert_eq!(notice == "mountpoints.bay.source" || notice == "mountpoints.gate.source", in_vain, "{json}");
    let (text, ok) = shown(|out| plan(&file.inspect(false), false, out));
    assert!(ok && text.contains("would fail: this build has no cameras") == in_vain, "{text}");
    assert!(!["s3cret", "v1ew", ":pass@"].iter().any(|secret| text.contains(secret)), "{text}");
}

#[test]
fn what_is_no_json_and_no_file_is_said() {
    let file = File::new("torn", "{");
    let (text, ok) = shown(|out| check(&file.inspect(false), out));
    assert!(!ok && text.starts_with("config: is no JSON"), "{text}");
    let gone = Inspect { config: PathBuf::from("/nowhere/config.json"), json: false };
    let error = check(&gone, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/config.json: "), "{error}");
}

#[test]
fn version_says_what_is_built_in() {
    let mut out = Vec::new();
    version(true, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("fieldgate ") && text.contains("GStreamer"), "{text}");
}

#[test]
fn an_old_deployment_is_shown_as_a_config_that_runs() {
    let env =
        File::new("env", "CMS_IP=10.0.0.3\nname=a\nvendor=b\nversion=c\na_b_c_rtmp_ip=10.0.0.2\nPATH=/bin\n");
    let state = File::new(
        "state",
        r#"{"cameras": [{"name": "cam", "type": "360", "streamingEngines": ["10.0.0.5"]},
        {"name": "yard"}, {"name": "a b"}]}"#,
    );
    let base =
        File::new("base", r#"{"mountpoints": {"yard": {"source": {"kind": "publish", "key": "s3cret"}}}}"#);
    let wish = Import {
        file: env.0.clone(),
        state_file: Some(state.0.clone()),
        config: Some(base.0.clone()),
        publish_allow: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    assert_eq!(import::import(&wish, &mut out, &mut notes).unwrap(), ExitCode::SUCCESS);
    let (out, notes) = (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap());
    for told in ["PATH: no setting is known", "yard is taken on the RTMP port", "cameras[2]: its name"] {
        assert!(notes.contains(told), "{told} is not in {notes}");
    }
    assert!(!notes.contains("publish_allow is empty"));
    let config = Config::parse(&out).unwrap();
    assert_eq!(validate_on(&config, None), []);
    assert_eq!(config.mountpoints["cam"].push[0].url.reveal(), "rtmp://10.0.0.5/360/cam");
    assert!(out.contains("s3cret"), "what the caller gave is not lost");
    let torn = File::new("torn-env", "nothing");
    let error = import::import(&Import { file: torn.0.clone(), ..wish }, &mut Vec::new(), &mut Vec::new());
    assert!(error.unwrap_err().to_string().ends_with("line 1 is no NAME=VALUE"));
}

#[test]
fn a_claim_code_is_shown_and_read_back_from_its_qr_code() {
    let state = std::env::temp_dir().join(format!("fieldgate-claim-qr-{}", std::process::id()));
    std::fs::create_dir_all(&state).unwrap();
    drop(crate::access::Access::open(&state, Path::new("/nonexistent/reset"), wall_clock(None)).unwrap());
    let show = |qr: Option<Option<&str>>| {
        let mut out = Vec::new();
        let shown = claim_code(&state, qr, &mut out).unwrap() == ExitCode::SUCCESS;
        (shown, String::from_utf8(out).unwrap())
    };
    let (_, plain) = show(None);
    let code = plain.trim();
    assert!(code.len() == 11 && plain.lines().count() == 1, "{plain}");
    assert!(!show(Some(None)).0, "nothing is announced, and no address named");
    assert!(!show(Some(Some("fieldgate"))).0);
    let read = |at: Option<&str>| {
        let (shown, text) = show(Some(at));
        let (first, drawn) = text.split_once('\n').unwrap();
        assert!(shown && first == code);
        qr::tests::seen(drawn)
    };
    assert_eq!(read(Some("https://10.0.0.7:8443")), [format!("https://10.0.0.7:8443/#claim={code}")]);
    std::fs::write(state.join("announced"), "https://fieldgate-7f3a.local:8443/\n").unwrap();
    assert_eq!(read(None), [format!("https://fieldgate-7f3a.local:8443/#claim={code}")]);
    let mut console = Vec::new();
    assert_eq!(welcome::welcome(&state, &mut console).unwrap(), ExitCode::SUCCESS);
    let console = String::from_utf8(console).unwrap();
    assert!(console.contains(&format!("fieldgate: claim code {code}\n")), "{console}");
    let drawn = console.split_once("with this:\n").unwrap().1;
    assert_eq!(qr::tests::seen(drawn), [format!("https://fieldgate-7f3a.local:8443/#claim={code}")]);
    std::fs::remove_dir_all(&state).unwrap();
}
