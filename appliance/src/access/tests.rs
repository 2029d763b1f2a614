//! The rules together, on files that may fail.

use super::*;
use crate::store::sim::{Fail, SimFs};
use std::time::Duration;

const PASSWORD: &str = "battery staple";

fn home() -> IpAddr {
    IpAddr::from([192, 168, 1, 2])
}

fn thief() -> IpAddr {
    IpAddr::from([10, 6, 6, 6])
}

/// Access on files in memory, and the machine's own secret.
fn on(book: &SimFs, log: &SimFs) -> (Access, Vec<Notice>, String) {
    let (book, log) = (Box::new(book.clone()), Box::new(log.clone()));
    Access::set_up(PathBuf::new(), book, log, Cost::CHEAP, Clock::default()).unwrap()
}

/// Access that nobody has claimed, and the machine's own secret: for tests of what stands behind it.
pub(crate) fn for_tests() -> (std::sync::Arc<Access>, String) {
    let (access, _, local) = on(&SimFs::default(), &SimFs::default());
    (std::sync::Arc::new(access), local)
}

fn fresh() -> Access {
    on(&SimFs::default(), &SimFs::default()).0
}

pub(crate) fn code(access: &Access) -> String {
    access.lock_state().book.claim_code().unwrap().to_owned()
}

fn claimed() -> Access {
    let access = fresh();
    access.claim(&code(&access), "ann", PASSWORD, home(), Instant::now()).unwrap();
    access
}

fn asked(need: Need, credential: Option<Credential<'_>>) -> Asked<'_> {
    Asked {
        need,
        mountpoint: None,
        is_safe: true,
        credential,
        csrf: None,
        is_same_origin: false,
        from: home(),
    }
}

const CONFIG: Need = Need::Role(Role::Installer, Area::Config);

fn wish(role: Role, areas: &[Area], expires: Option<Timestamp>) -> TokenWish {
    TokenWish { name: "nvr".to_owned(), role, streams: Streams::all(), areas: areas.to_vec(), expires }
}

#[test]
fn before_the_claim_there_is_nothing_but_the_claim() {
    let (access, _, local) = on(&SimFs::default(), &SimFs::default());
    let now = Instant::now();
    assert_eq!(access.admit(&asked(Need::Nothing, None), now), Ok(None));
    for need in [Need::Login, Need::Known, CONFIG] {
        assert_eq!(access.admit(&asked(need, None), now), Err(Refusal::Unclaimed));
        let wrong = Some(Credential::Bearer("fgt_00_11"));
        assert_eq!(access.admit(&asked(need, wrong), now), Err(Refusal::Unclaimed));
    }
    assert!(matches!(access.log_in("ann", PASSWORD, home(), now), Err(EntryError::Unclaimed)));
    let own = Asked { from: IpAddr::from([127, 0, 0, 1]), ..asked(CONFIG, Some(Credential::Bearer(&local))) };
    assert!(access.admit(&own, now).unwrap().is_some(), "its owner at the machine itself may");
}

#[test]
fn the_code_claims_once() {
    let (access, now) = (fresh(), Instant::now());
    let code = code(&access);
    assert!(matches!(access.claim("00000-00000", "ann", PASSWORD, home(), now), Err(EntryError::Wrong(_))));
    let weak = access.claim(&code, "ann", "short", home(), now);
    assert!(matches!(weak, Err(EntryError::Change(ChangeError::Refused(BookError::Password(_))))));
    let opened = access.claim(&code.to_lowercase(), "ann", PASSWORD, home(), now).unwrap();
    assert_eq!((opened.principal.role, access.is_claimed()), (Role::Admin, true));
    assert!(matches!(access.claim(&code, "eve", PASSWORD, home(), now), Err(EntryError::Claimed)));
    assert!(access.admit(&asked(CONFIG, Some(Credential::Session(&opened.secret))), now).unwrap().is_some());
}

/// Counts, not times: how many guesses get as far as being compared.
#[test]
fn guessing_is_cut_off_by_address_and_the_owner_gets_in_elsewhere() {
    let (access, now) = (fresh(), Instant::now());
    let tries = |attempt: &dyn Fn() -> EntryError| -> usize {
        (0..10_000).take_while(|_| matches!(attempt(), EntryError::Wrong(_))).count()
    };
    let guess = || access.claim("AAAAA-AAAAA", "eve", PASSWORD, thief(), now).err().unwrap();
    assert_eq!(tries(&guess), lockout::FREE_TRIES as usize);
    let right = access.claim(&code(&access), "eve", PASSWORD, thief(), now);
    assert!(matches!(right, Err(EntryError::Wait(_))), "not even the right one");
    let opened = access.claim(&code(&access), "ann", PASSWORD, home(), now).unwrap();

    let later = now + lockout::LONGEST_WAIT;
    let guess = || access.log_in("ann", "wrong password", thief(), later).err().unwrap();
    assert!(tries(&guess) <= lockout::FREE_TRIES as usize);
    let right = access.log_in("ann", PASSWORD, thief(), later);
    assert!(matches!(right, Err(EntryError::Wait(_))));
    assert!(access.log_in("ann", PASSWORD, home(), later).is_ok(), "the account itself is never locked");
    let there = Asked { from: thief(), ..asked(CONFIG, Some(Credential::Session(&opened.secret))) };
    assert!(access.admit(&there, later).unwrap().is_some(), "who is in stays in");
}

#[test]
fn guessed_tokens_count_as_wrong_tries_and_right_ones_always_pass() {
    let (access, now) = (claimed(), Instant::now());
    let (id, token) = access.add_token(wish(Role::Admin, &[], None), "ann").unwrap();
    let half = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    let ask = |text: &str| {
        access.admit(&Asked { from: thief(), ..asked(CONFIG, Some(Credential::Bearer(text))) }, now)
    };
    let answers: Vec<_> = (0..100).map(|_| ask(&half)).collect();
    let compared = answers.iter().filter(|answer| **answer == Err(Refusal::Unknown)).count();
    assert_eq!(compared, lockout::FREE_TRIES as usize);
    assert!(answers[50..].iter().all(|answer| matches!(answer, Err(Refusal::Wait(_)))));
    assert!(ask(&token).unwrap().is_some());
    assert_eq!(access.tokens().1[0].id, id);
}

#[test]
fn wrong_user_and_wrong_password_look_the_same() {
    let (access, now) = (claimed(), Instant::now());
    let text =
        |name: &str, password: &str| access.log_in(name, password, home(), now).err().unwrap().to_string();
    assert_eq!(text("ann", "wrong password"), text("nobody", "wrong password"));
    let long = "x".repeat(100_000);
    assert_eq!(text("ann", &long), text("ann", "wrong password"));
}

#[test]
fn a_session_changes_things_only_from_a_page_that_can_read_it() {
    let (access, now) = (claimed(), Instant::now());
    let session = access.log_in("ann", PASSWORD, home(), now).unwrap().secret;
    let token = csrf(&session);
    let ask = |csrf: Option<&str>, is_same_origin, is_safe| {
        let credential = Some(Credential::Session(&session));
        access.admit(&Asked { csrf, is_same_origin, is_safe, ..asked(CONFIG, credential) }, now)
    };
    assert!(ask(None, false, true).is_ok(), "reads need nothing more");
    assert!(ask(Some(&token), true, false).is_ok());
    for (csrf, is_same_origin) in [
        (None, true),
        (Some(""), true),
        (Some(&session[..]), true),
        (Some(&token[..10]), true),
        (Some(&token[..]), false),
    ] {
        assert_eq!(ask(csrf, is_same_origin, false), Err(Refusal::Forged));
    }
    let other = access.log_in("ann", PASSWORD, home(), now).unwrap().secret;
    let foreign = csrf(&other);
    assert_eq!(ask(Some(&foreign), true, false), Err(Refusal::Forged), "of another session");
}

#[test]
fn each_login_has_a_session_of_its_own_and_none_survives_its_end() {
    let (access, now) = (claimed(), Instant::now());
    let known =
        |secret: &str| access.admit(&asked(Need::Known, Some(Credential::Session(secret))), now).is_ok();
    let first = access.log_in("ann", PASSWORD, home(), now).unwrap().secret;
    let second = access.log_in("ann", PASSWORD, home(), now).unwrap().secret;
    assert_ne!(first, second);
    assert!(!known("chosen by somebody else"), "a session is never opened under a given secret");
    access.log_out(&first);
    assert!(!known(&first) && known(&second));
    access.set_password("ann", "another battery", Some(&second)).unwrap();
    assert!(known(&second));
    let third = access.log_in("ann", "another battery", home(), now).unwrap().secret;
    access.set_password("ann", PASSWORD, None).unwrap();
    assert!(!known(&second) && !known(&third), "a changed password ends them");
    assert!(access.log_in("ann", "another battery", home(), now).is_err());
}

#[test]
fn who_is_removed_or_demoted_is_so_at_the_next_request() {
    let (access, now) = (claimed(), Instant::now());
    access.add_user("bob", Role::Installer, Streams::default(), PASSWORD).unwrap();
    let bob = access.log_in("bob", PASSWORD, home(), now).unwrap().secret;
    let ask = || access.admit(&asked(CONFIG, Some(Credential::Session(&bob))), now);
    assert!(ask().is_ok());
    let revision = access.users().0;
    assert!(matches!(
        access.set_user("bob", Role::Viewer, Streams::default(), Some(revision - 1)),
        Err(ChangeError::Refused(BookError::Stale { current })) if current == revision
    ));
    access.set_user("bob", Role::Viewer, Streams(vec!["gate".to_owned()]), Some(revision)).unwrap();
    assert!(matches!(ask(), Err(Refusal::Role { least: Role::Installer, .. })));
    let watch = |name| {
        let need = Need::Role(Role::Viewer, Area::Watch);
        let credential = Some(Credential::Session(&bob));
        access.admit(&Asked { mountpoint: Some(name), ..asked(need, credential) }, now)
    };
    assert!(watch("gate").is_ok());
    assert!(matches!(watch("yard"), Err(Refusal::Stream { .. })));
    access.remove_user("bob", None).unwrap();
    assert_eq!(ask(), Err(Refusal::Unknown));
    access.add_user("bob", Role::Admin, Streams::default(), PASSWORD).unwrap();
    assert_eq!(ask(), Err(Refusal::Unknown), "another bob is not he");
}

#[test]
fn tokens_end_by_time_and_by_hand_and_reach_no_further_than_their_areas() {
    let (access, now) = (claimed(), Instant::now());
    let soon = Timestamp::from_unix_millis(timestamp(&access.clock).unix_millis() + 50);
    let ask = |token: &str, need| access.admit(&asked(need, Some(Credential::Bearer(token))), now);
    let (_, short) = access.add_token(wish(Role::Installer, &[], Some(soon)), "ann").unwrap();
    assert!(ask(&short, CONFIG).is_ok());
    while timestamp(&access.clock) < soon {
        // The clock is the machine's; it cannot be handed in here.
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ask(&short, CONFIG), Err(Refusal::Unknown));
    let (id, scraper) = access.add_token(wish(Role::Operator, &[Area::Metrics], None), "ann").unwrap();
    assert!(ask(&scraper, Need::Role(Role::Operator, Area::Metrics)).is_ok());
    assert!(matches!(ask(&scraper, Need::Role(Role::Operator, Area::Status)), Err(Refusal::Role { .. })));
    access.remove_token(&id).unwrap();
    assert_eq!(ask(&scraper, Need::Role(Role::Operator, Area::Metrics)), Err(Refusal::Unknown));
}

#[test]
fn the_machines_own_secret_is_of_use_on_the_machine_alone() {
    let (access, _, local) = on(&SimFs::default(), &SimFs::default());
    let now = Instant::now();
    let ask = |text: &str, from: [u8; 4]| {
        access.admit(&Asked { from: from.into(), ..asked(CONFIG, Some(Credential::Bearer(text))) }, now)
    };
    assert!(ask(&local, [127, 0, 0, 1]).unwrap().is_some());
    assert!(ask(&local, [192, 168, 1, 2]).is_err());
    assert!(ask(&local[..local.len() - 1], [127, 0, 0, 1]).is_err());
    let again = on(&SimFs::default(), &SimFs::default()).2;
    assert_ne!(local, again, "made anew at each start");
}

#[test]
fn a_cut_after_any_step_leaves_the_old_people_or_the_new() {
    let (book, log) = (SimFs::default(), SimFs::default());
    {
        let access = on(&book, &log).0;
        access.claim(&code(&access), "ann", PASSWORD, home(), Instant::now()).unwrap();
    }
    let hashed = Hasher::new(Cost::CHEAP).unwrap().hash(PASSWORD).unwrap();
    let people = |fs: &SimFs| {
        let access = on(fs, &SimFs::default()).0;
        assert!(access.is_claimed(), "nobody is ever locked out by a cut");
        access.users().1.into_iter().map(|user| user.name).collect::<Vec<_>>()
    };
    let (old, new) = (vec!["ann".to_owned()], vec!["ann".to_owned(), "bob".to_owned()]);
    let mut finished = 0;
    for cut in 0..8 {
        let fs = book.after_cut().pop().unwrap();
        let access = on(&fs, &SimFs::default()).0;
        fs.failing(Fail::CutBefore(cut));
        let added = access.change(None, |book| {
            book.add_user("bob", Role::Viewer, Streams::all(), hashed.clone(), Timestamp::default())
        });
        finished += usize::from(added.is_ok());
        assert_eq!(access.users().1.len() == 2, added.is_ok(), "in force only when it is on flash");
        for after in fs.after_cut() {
            let found = people(&after);
            assert!(found == new || (found == old && added.is_err()), "cut before {cut}: {found:?}");
        }
    }
    assert!((1..8).contains(&finished), "some were cut and some were not");
}

#[test]
fn a_cut_during_the_claim_leaves_it_unclaimed_with_the_same_code_or_claimed() {
    let first = SimFs::default();
    let code = code(&on(&first, &SimFs::default()).0);
    for cut in 0..6 {
        let fs = first.after_cut().pop().unwrap();
        let access = on(&fs, &SimFs::default()).0;
        fs.failing(Fail::CutBefore(cut));
        let done = access.claim(&code, "ann", PASSWORD, home(), Instant::now()).is_ok();
        for after in fs.after_cut() {
            let again = on(&after, &SimFs::default()).0;
            assert!(again.is_claimed() || !done);
            if !again.is_claimed() {
                assert_eq!(self::code(&again), code, "what is printed on a label stays true");
            }
        }
    }
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let fs = SimFs::default();
    let access = on(&fs, &SimFs::default()).0;
    access.claim(&code(&access), "ann", PASSWORD, home(), Instant::now()).unwrap();
    fs.failing(Fail::Once(0, io::ErrorKind::StorageFull));
    let refused = access.add_user("bob", Role::Viewer, Streams::all(), PASSWORD);
    assert!(refused.unwrap_err().to_string().contains("nothing was changed"));
    assert_eq!(access.users().1.len(), 1);
    access.add_user("bob", Role::Viewer, Streams::all(), PASSWORD).unwrap();
}

#[test]
fn a_book_that_cannot_be_read_opens_no_door() {
    let fs = SimFs::default();
    let access = on(&fs, &SimFs::default()).0;
    let first = code(&access);
    access.claim(&first, "ann", PASSWORD, home(), Instant::now()).unwrap();
    fs.damage(BOOK, b"{\"schema\": 1");
    let (access, notices, _) = on(&fs, &SimFs::default());
    assert_eq!(notices[0].code, "access_unreadable");
    assert!(!access.is_claimed() && code(&access) != first);
    assert!(fs.read(BROKEN).unwrap().is_some());
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("fg-access-{}", secret::hex(&secret::random::<8>().unwrap()));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_reset_file_is_heeded_once_also_where_it_cannot_be_removed() {
    let folder = Folder::new();
    let reset = folder.0.join("reset");
    let open = || Access::open(&folder.0, &reset, Clock::default()).unwrap();
    let first = read_code(&folder.0);
    assert_eq!(first, None, "no gateway has run here yet");
    {
        let (access, notices) = open();
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(access.notice().unwrap().code, "unclaimed");
        assert_eq!(read_code(&folder.0).as_deref(), Some(code(&access).as_str()));
        access.claim(&code(&access), "ann", PASSWORD, home(), Instant::now()).unwrap();
        assert_eq!(access.notice(), None);
        access.add_token(wish(Role::Admin, &[], None), "ann").unwrap();
        assert_eq!(read_claim_code(&folder.0).unwrap(), None);
    }
    std::fs::write(&reset, b"").unwrap();
    let mark = reset::look(&reset).unwrap().unwrap();
    {
        let (access, notices) = open();
        assert_eq!(notices[0].code, "access_reset");
        assert!(!access.is_claimed() && access.tokens().1.is_empty() && !reset.exists());
        assert!(access.audit(None, 10).entries.iter().any(|entry| entry.what.starts_with("reset by ")));
        assert_eq!(access.lock_state().book.reset, Some(mark.mark.clone()));
        access.claim(&code(&access), "bob", PASSWORD, home(), Instant::now()).unwrap();
        // As if it had not been possible to remove it.
        access.change(None, |_| Ok(())).unwrap();
    }
    std::fs::write(&reset, b"").unwrap();
    let again = reset::look(&reset).unwrap().unwrap();
    let (access, notices) = open();
    if again == mark {
        assert!(access.is_claimed() && notices.is_empty(), "the same file is heeded once");
    } else {
        assert!(!access.is_claimed(), "another file is heeded");
    }
}

fn read_code(folder: &Path) -> Option<String> {
    read_claim_code(folder).ok().flatten()
}

#[test]
fn files_belong_to_their_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let (access, _) = Access::open(&folder.0, Path::new("/nonexistent/reset"), Clock::default()).unwrap();
    access.claim(&code(&access), "ann", PASSWORD, home(), Instant::now()).unwrap();
    for file in ["access/access.json", "access/local.token", "audit/audit-0.json"] {
        let mode = std::fs::metadata(folder.0.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mode = std::fs::metadata(access.folder()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_happened_is_in_the_log_without_secrets() {
    let (access, now) = (claimed(), Instant::now());
    access.log_in("ann", PASSWORD, home(), now).unwrap();
    let _ = access.log_in("ann", "canary-of-a-password", thief(), now);
    access.note_watch("ann", "x", "gate", now);
    access.note_watch("ann", "x", "gate", now);
    let whats: Vec<_> = access
        .audit(None, 9)
        .entries
        .into_iter()
        .map(|e| format!("{} {} {} {}", e.who, e.from, e.what, e.result))
        .collect();
    assert_eq!(
        whats,
        [
            "ann x watch gate done",
            "ann 10.6.6.6 log_in refused: wrong user or password",
            "ann 192.168.1.2 log_in done",
            "ann 192.168.1.2 claim done",
        ]
    );
}
