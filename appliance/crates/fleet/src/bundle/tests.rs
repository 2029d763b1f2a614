use super::*;
use crate::judge::{ALL, Taken, Target, Verdict, judge};
use crate::text::TEXT_MAX;
use serde_json::json;

pub(crate) fn key() -> SigningKey {
    SigningKey::parse(
        "-----BEGIN PRIVATE KEY-----\n\
         MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
         -----END PRIVATE KEY-----\n",
    )
    .unwrap()
}

pub(crate) fn draft() -> Draft {
    serde_json::from_value(json!({
        "number": 7,
        "issued": "2026-11-01T00:00:00Z",
        "expires": "2026-12-01T00:00:00Z",
        "to": {"devices": ["fg-1"], "groups": ["north"]},
        "note": "a first one",
        "patch": {"mountpoints": {"{{gate}}": {"source": {"kind": "test"}}}, "x": "{{device_id}}"},
        "variables": {"fg-1": {"gate": "gate-1"}, "fg-2": {"gate": 2}},
    }))
    .unwrap()
}

fn ring() -> KeyRing {
    serde_json::from_value(json!({"fleet-1": key().public()})).unwrap()
}

fn signed(draft: &Draft) -> String {
    draft.sign("fleet-1", &key()).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn at(device: &str, groups: &[String], now: &str, taken: Option<&Taken>) -> Result<Verdict, Refusal> {
    let bundle = Bundle::open(&signed(&draft()), &ring()).unwrap();
    judge(&bundle, &Target { device, groups, now: time(now), taken })
}

const NOW: &str = "2026-11-20T00:00:00Z";

#[test]
fn what_is_signed_is_read_and_filled_in_for_each_gateway() {
    let text = signed(&draft());
    assert!(text.starts_with("fgb1.fleet-1.") && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    let bundle = Bundle::open(&format!(" {text}\n"), &ring()).unwrap();
    assert_eq!((&bundle.draft, bundle.key.as_str()), (&draft(), "fleet-1"));
    assert_eq!(bundle.digest, Digest::of(&text));
    let variables = |device: &str| Variables::from([("device_id".to_owned(), json!(device))]);
    let content = |device: &str| bundle.content_for(device, &variables(device));
    let expected = json!({"mountpoints": {"gate-1": {"source": {"kind": "test"}}}, "x": "fg-1"});
    assert_eq!(content("fg-1"), Ok(Content::Patch(expected)));
    assert!(matches!(content("fg-2"), Ok(Content::Patch(patch)) if patch["mountpoints"]["2"].is_object()));
    assert_eq!(content("fg-3").unwrap_err().code(), "template");
}

#[test]
fn a_signature_holds_for_the_exact_text_of_its_key_alone() {
    let text = signed(&draft());
    let refused = |text: &str| Bundle::open(text, &ring()).unwrap_err();
    assert_eq!(refused(&text.replace("fleet-1", "fleet-2")), Refusal::UnknownKey("fleet-2".to_owned()));
    // Every character of it counts: flipped one by one, none is taken.
    for index in "fgb1.fleet-1.".len()..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(Bundle::open(&changed, &ring()).is_err(), "character {index}");
    }
    let other = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let forged = draft().sign("fleet-1", &other).unwrap();
    assert_eq!(refused(&forged), Refusal::BadSignature("fleet-1".to_owned()));
    // A name that another key of the ring has does not help either.
    let both: KeyRing =
        serde_json::from_value(json!({"fleet-1": key().public(), "fleet-2": other.public()})).unwrap();
    let renamed = text.replace("fgb1.fleet-1.", "fgb1.fleet-2.");
    assert_eq!(Bundle::open(&renamed, &both), Err(Refusal::BadSignature("fleet-2".to_owned())));
}

#[test]
fn what_is_no_bundle_is_told_so() {
    let refused = |text: &str| Bundle::open(text, &ring()).unwrap_err().code();
    for wrong in
        ["", ".", "{}", "fgb2.a.b.c", "fgb1", "fgb1.a.b", "fgb1.a.b.c.d", "fgb1..b.c", "fgb1.a b.c.d"]
    {
        assert_eq!(refused(wrong), "not_a_bundle", "{wrong}");
    }
    let long = |len: usize| format!("fgb1.fleet-1.{}.A", "A".repeat(len - "fgb1.fleet-1..A".len()));
    assert_eq!(refused(&long(TEXT_MAX)), "bad_signature");
    assert_eq!(refused(&long(TEXT_MAX + 1)), "too_large");
}

#[test]
fn every_limit_is_checked_before_signing_and_after() {
    let refused = |change: fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        draft.sign("fleet-1", &key()).unwrap_err().to_string()
    };
    let named = |count: usize| (0..count).map(|number| format!("fg-{number}")).collect::<Vec<_>>();
    assert!(refused(|d| d.number = 0).starts_with("number must be 1 to"));
    assert!(refused(|d| d.number = Limits::NUMBER_MAX + 1).starts_with("number must be"));
    assert!(refused(|d| d.expires = d.issued).starts_with("expires must be after issued"));
    let late = draft().issued.plus(Limits::LIFE_MAX + Duration::from_millis(1));
    assert!(Draft { expires: late, ..draft() }.sign("fleet-1", &key()).is_err());
    assert!(refused(|d| d.to = Audience::default()).starts_with("to must be"));
    assert!(refused(|d| d.to.groups = vec!["a/b".to_owned()]).contains("a gateway or group"));
    let mut many = draft();
    many.to.devices = named(Limits::DEVICES_MAX);
    many.sign("fleet-1", &key()).unwrap();
    many.to.devices = named(Limits::DEVICES_MAX + 1);
    assert!(many.sign("fleet-1", &key()).unwrap_err().to_string().starts_with("to.devices must be"));
    many.to = Audience { devices: Vec::new(), groups: named(Limits::GROUPS_MAX + 1) };
    assert!(many.sign("fleet-1", &key()).unwrap_err().to_string().starts_with("to.groups must be"));
    assert!(refused(|d| d.note = Some("x".repeat(Limits::NOTE_MAX + 1))).starts_with("note must be"));
    assert!(refused(|d| d.config = Some(json!({}))).starts_with("the content must be"));
    assert!(refused(|d| d.patch = None).starts_with("the content must be"));
    assert!(refused(|d| d.patch = Some(json!([]))).starts_with("the content must be"));
    let set = |name: &str, value: Value| {
        let mut draft = draft();
        draft.variables.insert("fg-1".to_owned(), BTreeMap::from([(name.to_owned(), value)]));
        draft.sign("fleet-1", &key()).unwrap_err().to_string()
    };
    assert!(set("a b", json!("x")).starts_with("a variable must be"));
    assert!(set("a", json!({})).starts_with("a variable's value must be"));
    let mut many = draft();
    let crowd = (0..=Limits::VARIABLES_MAX).map(|number| (format!("v{number}"), json!(1))).collect();
    many.variables.insert("fg-1".to_owned(), crowd);
    assert!(many.sign("fleet-1", &key()).unwrap_err().to_string().starts_with("variables must be"));
    let huge = json!({"x": "y".repeat(TEXT_MAX)});
    let refused = Draft { patch: Some(huge), ..draft() }.sign("fleet-1", &key());
    assert_eq!(refused.unwrap_err().code(), "too_large");
    assert!(draft().sign("a.b", &key()).is_err());
}

/// Signed by a program that is not ours.
#[test]
fn an_authentic_bundle_of_another_shape_is_refused() {
    let refused = |payload: &str| {
        let text = text::seal(payload, "fleet-1", &key()).unwrap();
        Bundle::open(&text, &ring()).unwrap_err().to_string()
    };
    let good = serde_json::to_string(&draft()).unwrap();
    assert!(refused(&good.replace("\"note\"", "\"remark\"")).contains("unknown field"));
    assert!(refused(&good.replace("\"number\":7", "\"number\":7,\"number\":8")).contains("stands twice"));
    assert!(refused(&good.replace("\"number\":7", "\"number\":-7")).contains("cannot be read"));
    assert!(refused(&good.replace("2026-12-01T00:00:00.000Z", "soon")).contains("must be a time"));
    assert!(refused("[").contains("cannot be read"));
    assert!(refused(&"[".repeat(100_000)).contains("recursion limit"));
}

#[test]
fn a_bundle_is_for_the_named_gateways_and_groups_alone() {
    let north = ["north".to_owned()];
    assert_eq!(at("fg-1", &[], NOW, None), Ok(Verdict::New));
    assert_eq!(at("fg-9", &north, NOW, None), Ok(Verdict::New));
    let other = at("fg-9", &["south".to_owned()], NOW, None).unwrap_err();
    assert_eq!(other.code(), "other_device");
    assert!(other.to_string().contains("fg-9") && other.to_string().contains("south"), "{other}");
    // A group's name is no gateway's and the other way round.
    assert!(at("north", &["fg-1".to_owned()], NOW, None).is_err());
    let mut draft = draft();
    draft.to = Audience { devices: Vec::new(), groups: vec![ALL.to_owned()] };
    let bundle = Bundle::open(&signed(&draft), &ring()).unwrap();
    let target = Target { device: "any", groups: &[], now: time(NOW), taken: None };
    assert_eq!(judge(&bundle, &target), Ok(Verdict::New));
}

#[test]
fn numbers_only_rise() {
    let taken = |number: u64, text: &str| Taken { number, digest: Digest::of(text), issued: time(NOW) };
    let with = |taken: &Taken| at("fg-1", &[], NOW, Some(taken));
    assert_eq!(with(&taken(6, "x")), Ok(Verdict::New));
    assert_eq!(with(&taken(7, "x")), Err(Refusal::SameNumber(7)));
    assert_eq!(with(&taken(8, "x")), Err(Refusal::Older { number: 7, taken: 8 }));
    let same = taken(7, &signed(&draft()));
    assert_eq!(with(&same), Ok(Verdict::Known));
    // Known stays known also when it has expired since: it comes again with each session.
    assert_eq!(at("fg-1", &[], "2027-01-01T00:00:00Z", Some(&same)), Ok(Verdict::Known));
}

#[test]
fn an_expired_bundle_is_refused_also_under_a_clock_that_is_slow() {
    assert_eq!(at("fg-1", &[], "2026-11-30T23:59:59Z", None), Ok(Verdict::New));
    let late = at("fg-1", &[], "2026-12-01T00:00:00Z", None).unwrap_err();
    assert_eq!(late.code(), "expired");
    let later = Taken { number: 6, digest: Digest::of("x"), issued: time("2026-12-05T00:00:00Z") };
    let slow = at("fg-1", &[], "2026-01-01T00:00:00Z", Some(&later)).unwrap_err();
    assert_eq!(
        slow.to_string(),
        "the bundle expired at 2026-12-01T00:00:00.000Z, it is 2026-12-05T00:00:00.000Z"
    );
}
