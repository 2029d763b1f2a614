use super::*;
use crate::cli::{Cli, Command};
use clap::{CommandFactory, Parser};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fieldgate-bundle-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn say(args: &[&str], now: &str) -> (bool, String) {
    let all = [&["fieldgate", "bundle"], args].concat();
    let Command::Bundle(wish) = Cli::try_parse_from(all).unwrap().command else { panic!("not bundle") };
    let mut out = Vec::new();
    let code = run(&wish, now.parse().unwrap(), &mut out).unwrap();
    (code == ExitCode::SUCCESS, String::from_utf8(out).unwrap())
}

const NOW: &str = "2026-11-20T00:00:00Z";

#[test]
fn a_bundle_is_made_checked_and_shown_by_the_commands() {
    let folder = Folder::new("walk");
    let key = folder.path("fleet.pem");
    let (good, public) = say(&["keygen", &key], NOW);
    assert!(good);
    let wish = Bundle::Keygen { file: PathBuf::from(&key) };
    assert!(run(&wish, NOW.parse().unwrap(), &mut Vec::new()).is_err(), "a key is never overwritten");
    let patch =
        folder.write("patch.json", r#"{"mountpoints": {"{{gate}}": {"source": {"kind": "publish"}}}}"#);
    let variables = folder.write("variables.json", r#"{"fg-1": {"gate": "north"}}"#);
    let signed = ["sign", "--key", &key, "--name", "fleet-1", "--number", "3", "--device", "fg-1"];
    let signed = [&signed[..], &["--group", "yard", "--patch", &patch, "--variables", &variables]].concat();
    let (good, text) = say(&signed, NOW);
    assert!(good && text.starts_with("fgb1.fleet-1.") && text.ends_with('\n'), "{text}");
    let file = folder.write("bundle", &text);
    let trusted = format!("fleet-1={}", public.trim());
    let verify = |args: &[&str], now: &str| say(&[&["verify", &file, "--key", &trusted], args].concat(), now);
    let (good, told) = verify(&["--device", "fg-1"], NOW);
    assert!(good && told == "signed with fleet-1, number 3, expires 2026-12-20T00:00:00.000Z\n", "{told}");
    assert!(verify(&[], NOW).0, "without a gateway the signature alone counts");
    assert!(!verify(&["--device", "fg-2"], NOW).0, "another gateway");
    assert!(!verify(&["--device", "fg-2", "--group", "yard"], NOW).0, "no variables for it");
    assert!(!verify(&["--device", "fg-1"], "2026-12-20T00:00:00Z").0, "expired");
    let other = format!("fleet-2={}", public.trim());
    assert!(!say(&["verify", &file, "--key", &other], NOW).0, "a key that is not in the ring");
    let (good, shown) = say(&["show", &file], NOW);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(good && shown["key"] == "fleet-1" && shown["says"]["variables"]["fg-1"]["gate"] == "north");
    assert_eq!(shown["signature"], "not checked");
    assert!(!say(&["show", &patch], NOW).0, "what is no bundle");
}

#[test]
fn what_cannot_be_signed_is_told_and_nothing_is_written() {
    let folder = Folder::new("refused");
    let key = folder.path("fleet.pem");
    say(&["keygen", &key], NOW);
    let patch = folder.write("patch.json", "{}");
    let sign = |args: &[&str]| say(&[&["sign", "--key", &key, "--patch", &patch], args].concat(), NOW);
    assert!(sign(&["--name", "f", "--number", "1", "--group", "all"]).0);
    for wrong in [
        &["--name", "f", "--number", "0", "--group", "all"][..],
        &["--name", "f/g", "--number", "1", "--group", "all"],
        &["--name", "f", "--number", "1", "--device", "a b"],
        &["--name", "f", "--number", "1", "--device", "a", "--valid", "367d"],
    ] {
        assert_eq!(sign(wrong), (false, String::new()), "{wrong:?}");
    }
    assert!(
        !say(
            &["sign", "--key", &patch, "--patch", &patch, "--name", "f", "--number", "1", "--group", "all"],
            NOW
        )
        .0
    );
}

#[test]
fn the_commands_ask_for_what_they_need_and_explain_themselves() {
    let refused = |args: &[&str]| Cli::try_parse_from([&["fieldgate", "bundle"], args].concat()).is_err();
    assert!(refused(&["sign", "--key", "k", "--name", "n", "--number", "1", "--patch", "p"]), "for nobody");
    assert!(refused(&["sign", "--key", "k", "--name", "n", "--number", "1", "--device", "d"]), "nothing");
    assert!(refused(&["verify", "b"]), "no key");
    assert!(refused(&["verify", "b", "--key", "name"]) && refused(&["verify", "b", "--key", "name=short"]));
    let mut command = Cli::command();
    let bundle = command.find_subcommand_mut("bundle").unwrap();
    for command in bundle.get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments().filter(|argument| argument.get_id().as_str() != "help") {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

#[test]
fn a_bundle_goes_through_qr_codes_unchanged() {
    let folder = Folder::new("codes");
    let key = folder.path("fleet.pem");
    assert!(say(&["keygen", &key], NOW).0);
    let at = "https://fieldgate-7f3a.local:8443/";
    for (note, count) in [("short", 1), ("a longer remark, ", 2)] {
        let patch = json!({"mountpoints": {"gate": {"label": note.repeat(if count == 1 { 1 } else { 20 })}}});
        let patch = folder.write("patch.json", &patch.to_string());
        let signed = [
            "sign", "--key", &key, "--name", "fleet-1", "--number", "3", "--device", "fg-1", "--patch",
            &patch,
        ];
        let text = say(&signed, NOW).1;
        let file = folder.write("bundle", &text);
        let (good, drawn) = say(&["qr", &file, "--at", at], NOW);
        let read = qr::tests::seen(&drawn);
        assert!(good && read.len() == count && drawn.contains(&format!("1 of {count}\n")), "{read:?}");
        assert_eq!(say(&["qr", &file, "--at", at, "--text"], NOW).1.lines().collect::<Vec<_>>(), read);
        let before = format!("{at}#bundle=");
        let pieces = read.iter().map(|link| link.strip_prefix(&before).unwrap());
        let pieces = pieces.map(|part| if count == 1 { part } else { part.splitn(4, '.').nth(3).unwrap() });
        assert_eq!(pieces.collect::<String>(), text.trim());
        assert!(say(&["qr", &file], NOW).0, "the bare text as well");
        assert!(!say(&["qr", &file, "--at", "fieldgate-7f3a"], NOW).0);
    }
    let other = folder.write("other", "no bundle");
    assert!(!say(&["qr", &other], NOW).0);
}
