//! The page at `/`: to claim the gateway, to log in, or the status for who has.
//!
//! The forms are filled in by hand and sent by `door.js`; the installers' page will take their place.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::Request;
use super::{page, seen};
use crate::access::Access;

const HTML: &str = "text/html; charset=utf-8";

/// For who asks.
pub(super) fn page(request: &Request, api: &dyn AdminApi, access: &Access, host: &str) -> Reply {
    if request.principal.is_some() {
        return Reply::new(200, HTML, page::render(&seen::by(request, api.status()), &api.running(), host));
    }
    if access.is_claimed() {
        Reply::new(200, HTML, form("Log in", "/api/v1/session", "", "current-password"))
    } else {
        let code = "<p>Nobody has claimed this gateway yet. The code is on its label or its screen; \
            <code>fieldgate claim-code</code> shows it too.</p>\n\
            <p><label>Code <input name=\"code\" autocomplete=\"off\" autocapitalize=\"characters\" required></label></p>\n";
        Reply::new(200, HTML, form("Claim", "/api/v1/claim", code, "new-password"))
    }
}

fn form(title: &str, action: &str, before: &str, password: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>fieldgate</title>\n\
         <link rel=\"stylesheet\" href=\"/page.css\">\n<script src=\"/door.js\" defer></script>\n\
         <h1>fieldgate</h1>\n<form method=\"post\" data-action=\"{action}\">\n{before}\
         <p><label>User <input name=\"user\" autocomplete=\"username\" autocapitalize=\"none\" required></label></p>\n\
         <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"{password}\" required></label></p>\n\
         <p><button>{title}</button></p>\n<p role=\"alert\"></p>\n</form>\n\
         <noscript><p>This page needs scripts; programs use <code>POST {action}</code>.</p></noscript>\n"
    )
}
