//! What other systems may control.

use super::listeners::check_file;
use super::mountpoints::is_stream_name;
use crate::config::{Config, KmpApplication, Path, Problem, SecretUrl};

/// Headers that every callback has, or that would change how its body is read.
const OWN_HEADERS: [&str; 5] = ["Host", "Content-Type", "Connection", "Content-Length", "Transfer-Encoding"];

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let kmp = Path::root().field("compat").field("kmp");
    for (name, application) in &config.compat.kmp.applications {
        let path = kmp.field("applications").field(name);
        if !is_stream_name(name) {
            let problem = "a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit";
            problems.push(Problem::new(&path, problem).got(name.as_str()));
        } else if name == "relay" {
            problems.push(Problem::new(&path, "relay is reserved for other gateways").got(name.as_str()));
        }
        check_urls(&path, application, problems);
        check_headers(&path, application, problems);
        check_sizes(&path, application, problems);
    }
    let api = &config.compat.kmp.api;
    if let Some(index) = api.listen.iter().position(|address| !address.ip().to_canonical().is_loopback())
        && api.allow.is_empty()
    {
        let path = kmp.field("api").field("listen").item(index);
        let problem = Problem::new(&path, "is reached from elsewhere, but only loopback may ask");
        problems.push(
            problem
                .got(api.listen.get(index).map(ToString::to_string))
                .remedy("name the networks that may use it in compat.kmp.api.allow"),
        );
    }
}

fn check_urls(path: &Path, application: &KmpApplication, problems: &mut Vec<Problem>) {
    if application.publish_url.is_none() {
        let problem =
            Problem::new(&path.field("publish_url"), "is missing; without it nothing is sent anywhere");
        problems.push(problem.remedy("the controller's address, such as \"http://10.0.0.1/publish\""));
    }
    let mut is_tls = false;
    for (name, url) in application.urls() {
        match check_url(&path.field(name), url, "put an Authorization header into add_header") {
            Ok(of_url_is_tls) => is_tls |= of_url_is_tls,
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(ca) = &application.ca {
        problems.extend(check_file(&path.field("ca"), ca));
    }
    // Upstreams that the controller names may be kmps://, which the reference lacks.
    if application.strict && !is_tls {
        let unused = [("verify", !application.verify), ("ca", application.ca.is_some())];
        for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
            let problem =
                "has a meaning only for https:// callbacks, or without strict for kmps:// upstreams";
            problems.push(Problem::new(&path.field(name), problem));
        }
    }
}

/// Whether it is HTTPS, or what is wrong with it; `instead` of user and password in it.
pub(super) fn check_url(path: &Path, url: &SecretUrl, instead: &str) -> Result<bool, Problem> {
    let parts = url.parts().map_err(|error| Problem::new(path, error.to_string()).got(url.redacted()))?;
    let is_tls = parts.scheme.eq_ignore_ascii_case("https");
    if !is_tls && !parts.scheme.eq_ignore_ascii_case("http") {
        return Err(Problem::new(path, "scheme must be http or https").got(parts.scheme));
    }
    if parts.user.is_some() {
        let problem = Problem::new(path, "must have no user and password").got(url.redacted());
        return Err(problem.remedy(instead));
    }
    if url.reveal().contains('#') {
        return Err(Problem::new(path, "must have no part after #").got(url.redacted()));
    }
    Ok(is_tls)
}

fn check_headers(path: &Path, application: &KmpApplication, problems: &mut Vec<Problem>) {
    for (index, header) in application.add_header.iter().enumerate() {
        let path = path.field("add_header").item(index);
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = header.name.as_str();
        if !name.chars().all(is_token) {
            let problem = "must be a header's name: letters, digits and - without blanks";
            problems.push(Problem::new(&path.field("name"), problem).got(name));
        } else if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            problems
                .push(Problem::new(&path.field("name"), "is a header that callbacks have anyway").got(name));
        }
        let value = &header.value;
        let is_plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if !value.is_kept()
            && (value.reveal().is_empty()
                || value.reveal().len() > 256
                || value.reveal().trim() != value.reveal()
                || !value.reveal().chars().all(is_plain))
        {
            let problem = "a value is 1 to 256 printable ASCII characters without a blank at either end";
            problems.push(Problem::new(&path.field("value"), problem));
        }
    }
}

fn check_sizes(path: &Path, application: &KmpApplication, problems: &mut Vec<Problem>) {
    if application.mem_low_watermark >= application.mem_high_watermark {
        let problem =
            format!("must be less than mem_high_watermark, which is {}", application.mem_high_watermark);
        let problem = Problem::new(&path.field("mem_low_watermark"), problem);
        problems.push(problem.got(application.mem_low_watermark));
    }
    let tracks = [
        ("video", application.video_buffer_bytes, application.video_mem_limit),
        ("audio", application.audio_buffer_bytes, application.audio_mem_limit),
    ];
    for (track, buffer_bytes, mem_limit) in tracks {
        if u64::from(buffer_bytes) > mem_limit {
            let problem = format!("must be at most {track}_mem_limit, which is {mem_limit}");
            let path = path.field(&format!("{track}_buffer_bytes"));
            problems.push(Problem::new(&path, problem).got(buffer_bytes));
        }
    }
    if !application.timescale.is_multiple_of(1_000) {
        let problem = Problem::new(&path.field("timescale"), "must be a multiple of 1000, else times drift");
        problems.push(problem.got(application.timescale).remedy("90000 suits every codec"));
    }
}
