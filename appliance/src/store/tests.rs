use super::sim::{Fail, SimFs};
use super::*;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

/// A config that can be told from others, with a secret in it.
fn config(number: u32) -> Config {
    let text = format!(
        r#"{{"rtmp": {{"max_connections": {}, "max_connections_per_address": 1}},
             "mountpoints": {{"yard": {{"source": {{"kind": "publish", "key": "KEY-{number}"}}}}}}}}"#,
        number + 1
    );
    Config::parse(&text).unwrap()
}

fn at() -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000)
}

fn open(fs: &SimFs) -> Result<(Store, Boot), StoreError> {
    Store::open(Box::new(fs.clone()))
}

fn confirm(store: &mut Store, number: u32) -> Result<Meta, StoreError> {
    store.write_candidate(&config(number), "test", at())?;
    store.promote()
}

/// A disk on which these configs were confirmed one after the other.
fn disk(numbers: &[u32]) -> SimFs {
    let fs = SimFs::default();
    let (mut store, _) = open(&fs).unwrap();
    for number in numbers {
        confirm(&mut store, *number).unwrap();
    }
    fs
}

fn found(fs: &SimFs) -> Option<Config> {
    open(fs).unwrap().1.confirmed.map(|confirmed| confirmed.config)
}

#[test]
fn a_new_folder_has_no_config_and_is_not_taken_for_a_broken_one() {
    let (_, boot) = open(&SimFs::default()).unwrap();
    assert_eq!((boot.confirmed, boot.notices.len()), (None, 0));
}

#[test]
fn what_was_confirmed_is_found_again_with_its_secrets_and_revision() {
    let fs = disk(&[1, 2]);
    let (_, boot) = open(&fs).unwrap();
    let confirmed = boot.confirmed.unwrap();
    assert_eq!(confirmed.config, config(2));
    assert_eq!((confirmed.meta.revision, confirmed.meta.by.as_str(), confirmed.meta.at), (2, "test", at()));
    assert!(boot.notices.is_empty());
}

/// Cuts the power before every step of `operation` on `start`, and again before every step of the boot after that, in
/// every state that the disk may be in. Each time the next boot must find one of `allowed`.
fn cut_everywhere(
    start: &SimFs,
    allowed: &[Option<Config>],
    done: &Option<Config>,
    operation: impl Fn(&mut Store) -> bool,
) {
    let run = |fs: &SimFs, fail: Fail| {
        let (mut store, _) = open(fs).unwrap();
        fs.failing(fail);
        operation(&mut store)
    };
    let probe = start.after_cut().pop().unwrap();
    assert!(run(&probe, Fail::Never), "the operation must work without a cut");
    let steps = probe.steps();
    assert!(steps > 0);
    for cut in 0..=steps {
        let fs = start.after_cut().pop().unwrap();
        let finished = run(&fs, Fail::CutBefore(cut));
        assert_eq!(finished, cut == steps, "cut before step {cut}");
        for after in fs.after_cut() {
            let allowed = if finished { std::slice::from_ref(done) } else { allowed };
            check_boot_with_cuts(&after, allowed, cut);
        }
    }
}

fn check_boot_with_cuts(after: &SimFs, allowed: &[Option<Config>], cut: usize) {
    let copy = after.after_cut().pop().unwrap();
    let config = found(&copy);
    assert!(allowed.contains(&config), "cut before step {cut} leaves {config:?}");
    for boot_cut in 0..copy.steps() {
        let again = after.after_cut().pop().unwrap();
        again.failing(Fail::CutBefore(boot_cut));
        assert!(open(&again).is_err(), "a boot without power fails");
        for twice in again.after_cut() {
            let config = found(&twice);
            assert!(
                allowed.contains(&config),
                "cut before step {cut}, then {boot_cut} of the boot: {config:?}"
            );
        }
    }
}

#[test]
fn a_cut_after_any_step_of_the_first_config_leaves_none_or_the_whole() {
    let new = Some(config(1));
    cut_everywhere(&SimFs::default(), &[None, new.clone()], &new, |store| confirm(store, 1).is_ok());
}

#[test]
fn a_cut_after_any_step_of_a_change_leaves_the_old_or_the_new() {
    let (old, new) = (Some(config(2)), Some(config(3)));
    cut_everywhere(&disk(&[1, 2]), &[old, new.clone()], &new, |store| confirm(store, 3).is_ok());
}

#[test]
fn a_cut_after_any_step_of_a_candidate_leaves_the_old() {
    let old = Some(config(2));
    cut_everywhere(&disk(&[1, 2]), std::slice::from_ref(&old), &old, |store| {
        store.write_candidate(&config(3), "test", at()).is_ok()
    });
}

#[test]
fn a_cut_after_any_step_of_a_roll_back_leaves_the_old() {
    let old = Some(config(2));
    cut_everywhere(&disk(&[1, 2]), std::slice::from_ref(&old), &old, |store| {
        store.write_candidate(&config(3), "test", at()).is_ok() && store.drop_candidate().is_ok()
    });
}

#[test]
fn a_cut_after_any_step_of_a_change_after_damage_leaves_the_previous_or_the_new() {
    let fs = disk(&[1, 2]);
    fs.damage("confirmed.json", b"{\"schema\": 1, \"rev");
    let new = Some(config(3));
    cut_everywhere(&fs, &[Some(config(1)), new.clone()], &new, |store| confirm(store, 3).is_ok());
}

#[test]
fn an_error_at_any_step_keeps_old_or_new_and_the_next_change_works() {
    let probe = disk(&[1, 2]);
    let (mut store, _) = open(&probe).unwrap();
    probe.failing(Fail::Never);
    confirm(&mut store, 3).unwrap();
    let steps = probe.steps();
    for step in 0..steps {
        for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied] {
            let fs = disk(&[1, 2]);
            let (mut store, _) = open(&fs).unwrap();
            fs.failing(Fail::Once(step, kind));
            let error = confirm(&mut store, 3).unwrap_err();
            let is_new = matches!(error, StoreError::NotDurable(_));
            for after in fs.after_cut() {
                let allowed = [config(2), config(3)];
                assert!(allowed.contains(&found(&after).unwrap()), "step {step}: {error}");
            }
            assert_eq!(found(&fs), Some(config(if is_new { 3 } else { 2 })), "step {step}: {error}");
            fs.failing(Fail::Never);
            confirm(&mut store, 4).unwrap();
            assert_eq!(found(&fs), Some(config(4)));
        }
    }
}

#[test]
fn errors_say_what_helps() {
    let fs = disk(&[1]);
    let (mut store, _) = open(&fs).unwrap();
    fs.failing(Fail::Once(0, ErrorKind::StorageFull));
    let text = confirm(&mut store, 2).unwrap_err().to_string();
    assert_eq!(
        text,
        "cannot write candidate.json in the state folder: no storage space; free some space there"
    );
    fs.failing(Fail::Once(0, ErrorKind::PermissionDenied));
    let text = confirm(&mut store, 2).unwrap_err().to_string();
    assert!(text.ends_with("it must belong to the user that runs the gateway"), "{text}");
}

#[test]
fn an_unconfirmed_candidate_is_dropped_and_reported() {
    let fs = disk(&[1]);
    let (mut store, _) = open(&fs).unwrap();
    store.write_candidate(&config(2), "installer", at()).unwrap();
    let (mut store, boot) = open(&fs).unwrap();
    assert_eq!(boot.confirmed.unwrap().config, config(1));
    assert_eq!(boot.notices[0].code, "candidate_dropped");
    assert!(
        boot.notices[0].text.contains("by installer of 2023-11-14T22:13:20.000Z"),
        "{}",
        boot.notices[0].text
    );
    assert!(matches!(store.promote(), Err(StoreError::NoCandidate)));
    assert!(open(&fs).unwrap().1.notices.is_empty(), "reported once");
}

#[test]
fn a_damaged_confirmed_file_is_kept_aside_while_the_previous_serves() {
    let whole = disk(&[1, 2]).read("confirmed.json").unwrap().unwrap();
    let flipped = String::from_utf8(whole.clone()).unwrap().replace("KEY-2", "KEY-3").into_bytes();
    for damaged in [&b""[..], b"{}", b"null", &whole[..whole.len() / 2], &flipped] {
        let fs = disk(&[1, 2]);
        fs.damage("confirmed.json", damaged);
        for boot_number in 0..2 {
            let (_, boot) = open(&fs).unwrap();
            assert_eq!(boot.confirmed.unwrap().config, config(1));
            assert_eq!(boot.notices[0].code, "config_unreadable", "boot {boot_number} says so");
        }
        assert_eq!(fs.read("confirmed.broken.json").unwrap().unwrap(), damaged, "the broken one is kept");
        let (mut store, _) = open(&fs).unwrap();
        assert!(confirm(&mut store, 3).unwrap().revision > 2, "no revision is given out twice");
        assert!(open(&fs).unwrap().1.notices.is_empty());
    }
}

#[test]
fn a_lost_config_never_becomes_defaults() {
    let fs = disk(&[1, 2]);
    fs.damage("confirmed.json", b"x");
    fs.damage("previous.json", b"y");
    for _ in 0..2 {
        let error = open(&fs).err().expect("nothing can be read");
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("previous.json: is no config file"), "{error}");
    }
    let (mut store, boot) = Store::open_to_replace(Box::new(fs.clone())).unwrap();
    assert!(boot.confirmed.is_none());
    confirm(&mut store, 3).unwrap();
    assert_eq!(found(&fs), Some(config(3)));
}

#[test]
fn the_file_of_a_newer_schema_stays_while_ours_serves() {
    let fs = disk(&[1, 2]);
    let bytes = fs.read("confirmed.json").unwrap().unwrap();
    let newer = String::from_utf8(bytes).unwrap().replacen(
        "\"schema\": 1,\n  \"sha256\"",
        "\"schema\": 2,\n  \"sha256\"",
        1,
    );
    let newer = newer.replacen("\"schema\": 1,\n  \"revision\"", "\"schema\": 2,\n  \"revision\"", 1);
    assert!(newer.contains("\"schema\": 2"), "{newer}");
    fs.damage("confirmed.json", newer.as_bytes());
    let (mut store, boot) = open(&fs).unwrap();
    assert_eq!(boot.confirmed.unwrap().config, config(1));
    assert!(boot.notices[0].text.contains("has schema 2, this build reads 1"), "{}", boot.notices[0].text);
    assert_eq!(
        fs.read("confirmed.json").unwrap().unwrap(),
        newer.as_bytes(),
        "left for the build that wrote it"
    );
    confirm(&mut store, 3).unwrap();
    assert_eq!(found(&fs), Some(config(3)));
    assert_eq!(
        fs.read("schema-2.json").unwrap().unwrap(),
        newer.as_bytes(),
        "the last file of each schema is kept"
    );
}

/// A folder of its own, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fieldgate-store-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_real_folder_keeps_the_config_to_its_owner() {
    let folder = Folder::new("real");
    let path = folder.0.join("state");
    let (mut store, boot) = Store::open(Box::new(DirFs::open(&path).unwrap())).unwrap();
    assert!(boot.confirmed.is_none());
    confirm(&mut store, 1).unwrap();
    confirm(&mut store, 2).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    drop(store);
    let (_, boot) = Store::open(Box::new(DirFs::open(&path).unwrap())).unwrap();
    assert_eq!(boot.confirmed.unwrap().config, config(2));
}

#[test]
fn two_gateways_never_share_a_folder() {
    let folder = Folder::new("lock");
    let first = DirFs::open(&folder.0).unwrap();
    let error = DirFs::open(&folder.0).err().expect("it is locked");
    assert!(error.to_string().contains("in use by another gateway"), "{error}");
    drop(first);
    DirFs::open(&folder.0).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new("file");
    std::fs::write(&folder.0, b"").unwrap();
    let error = DirFs::open(&folder.0.join("state")).err().expect("a file is in the way").to_string();
    assert!(error.starts_with("cannot create ") && error.contains("state"), "{error}");
    std::fs::remove_file(&folder.0).unwrap();
}

/// Revisions and their configs, which must be those that were confirmed under these numbers.
fn past(fs: &SimFs) -> Vec<u64> {
    let (store, _) = open(fs).unwrap();
    let whole = |past: &std::sync::Arc<Past>| {
        let confirmed = past.confirmed().unwrap();
        assert_eq!(confirmed.config, config(u32::try_from(past.meta.revision).unwrap()));
        confirmed.meta.revision
    };
    store.history().iter().map(whole).collect()
}

#[test]
fn past_revisions_are_kept_and_the_oldest_go() {
    let last = u32::try_from(HISTORY_LEN).unwrap() + 5;
    let fs = disk(&(1..=last).collect::<Vec<_>>());
    let kept: Vec<u64> = (5..u64::from(last)).collect();
    assert_eq!(past(&fs), kept);
    let files = fs.list().unwrap().iter().filter(|name| name.starts_with("revision-")).count();
    assert_eq!(files, HISTORY_LEN, "on flash neither are there more");
}

#[test]
fn a_cut_after_any_step_leaves_a_history_without_holes() {
    for last in [2, u32::try_from(HISTORY_LEN).unwrap() + 2] {
        let start = disk(&(1..=last).collect::<Vec<_>>());
        let probe = start.after_cut().pop().unwrap();
        let (mut store, _) = open(&probe).unwrap();
        probe.failing(Fail::Never);
        confirm(&mut store, last + 1).unwrap();
        for cut in 0..=probe.steps() {
            let fs = start.after_cut().pop().unwrap();
            let (mut store, _) = open(&fs).unwrap();
            fs.failing(Fail::CutBefore(cut));
            confirm(&mut store, last + 1).ok();
            for after in fs.after_cut() {
                let confirmed = open(&after).unwrap().1.confirmed.unwrap().meta.revision;
                let found = past(&after);
                let first = found.first().copied().unwrap_or(confirmed);
                assert_eq!(found, (first..confirmed).collect::<Vec<_>>(), "cut before step {cut}");
                assert!(found.len() + 1 >= usize::try_from(last).unwrap().min(HISTORY_LEN) - 1);
            }
        }
    }
}

#[test]
fn a_damaged_past_revision_goes_and_a_lost_config_leaves_the_rest() {
    let fs = disk(&[1, 2, 3]);
    fs.damage("revision-1.json", b"{");
    assert_eq!(past(&fs), [2]);
    for file in ["confirmed.json", "previous.json"] {
        fs.damage(file, b"x");
    }
    assert!(open(&fs).is_err());
    let (mut store, _) = Store::open_to_replace(Box::new(fs.clone())).unwrap();
    let meta = confirm(&mut store, 9).unwrap();
    assert!(meta.revision > 2, "no revision is given out twice");
    assert_eq!(past(&fs), [2]);
}
