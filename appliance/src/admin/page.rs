//! The installers' page: plain files of `appliance/web`, held in the program.
//!
//! The same for everybody, logged in or not: what it shows it asks of the API, which knows who asks.

use super::reply::Reply;
use super::routes::Route;
use crate::access::Need;

/// One file.
struct File {
    /// Where it is served.
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! file {
    ($name:literal, $content_type:expr) => {
        File {
            path: concat!("/web/", $name),
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../web/", $name)),
        }
    };
}

static FILES: [File; 29] = [
    File { path: "/", content_type: HTML, bytes: include_bytes!("../../web/index.html") },
    file!("style.css", CSS),
    file!("icon.svg", IMAGE),
    file!("app.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("bundle.js", SCRIPT),
    file!("found.js", SCRIPT),
    file!("handed.js", SCRIPT),
    file!("texts.js", SCRIPT),
    file!("words.js", SCRIPT),
    file!("store.js", SCRIPT),
    file!("change.js", SCRIPT),
    file!("picture.js", SCRIPT),
    file!("bar.js", SCRIPT),
    file!("door.js", SCRIPT),
    file!("cameras.js", SCRIPT),
    file!("add.js", SCRIPT),
    file!("camera.js", SCRIPT),
    file!("upstreams.js", SCRIPT),
    file!("trial.js", SCRIPT),
    file!("people.js", SCRIPT),
    file!("site.js", SCRIPT),
    file!("help.js", SCRIPT),
    file!("network.js", SCRIPT),
    file!("updates.js", SCRIPT),
    file!("events.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("certificate.js", SCRIPT),
];

/// Whoever opens the page must get it before he can log in.
static ROUTE: Route = Route::read_only("/web", Need::Nothing);

fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    find(path).map(|_| &ROUTE)
}

/// The file at a path whose route was found here.
pub(super) fn get(path: &str) -> Reply {
    match find(path) {
        Some(file) => Reply::new(200, file.content_type, file.bytes),
        None => Reply::problem(404, &format!("there is nothing at {path}"), &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(file: &File) -> &'static str {
        std::str::from_utf8(file.bytes).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_what_they_name_is_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/web");
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".js") || name.ends_with(".css") || name.ends_with(".svg"))
            .map(|name| format!("/web/{name}"))
            .collect();
        let served: BTreeSet<String> =
            FILES.iter().map(|file| file.path.to_owned()).filter(|path| path != "/").collect();
        assert_eq!(on_disk, served);
        for file in &FILES {
            let words = text(file).split(['"', '\'']);
            let named = words.filter(|word| word.starts_with("./") || word.starts_with("/web/"));
            // Shapes are for the type checker alone.
            for named in named.filter(|word| *word != "./types.js") {
                let path = named.replacen("./", "/web/", 1);
                assert!(find(&path).is_some(), "{} names {named}", file.path);
            }
        }
        assert!(find("/web/../admin/page.rs").is_none() && find("/web/").is_none());
    }

    #[test]
    fn nothing_stands_in_the_files_that_the_content_policy_refuses() {
        for file in &FILES {
            let text = text(file);
            for forbidden in
                ["style=", "onclick=", "javascript:", "http://", "https://", "eval(", "innerHTML"]
            {
                // The name of a namespace is no address that is asked for.
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(forbidden), "{forbidden} in {}", file.path);
            }
        }
    }
}
