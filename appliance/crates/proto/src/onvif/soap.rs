//! SOAP 1.2 messages, and what a camera's answer is: a body, or a fault.

use super::civil;
use super::xml::{self, Element, XmlError, escape};
use crate::http_auth::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// Longest text of a fault that is kept, in characters.
const MAX_REASON: usize = 200;

/// What a fault means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The login is missing, wrong, or not enough.
    NotAuthorized,
    /// The camera does not know this call.
    NotSupported,
    /// Anything else.
    Other,
}

/// A camera's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the camera refuses: {reason}")]
pub struct Fault {
    /// What it means.
    pub kind: FaultKind,
    /// The camera's words, shortened.
    pub reason: String,
}

/// Why an answer holds no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoapError {
    /// Not XML, or too much of it.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// XML, but no SOAP envelope with a body.
    #[error("the answer is no SOAP message")]
    NotSoap,
    /// A fault.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A request with this body, to be sent as `application/soap+xml`.
pub(super) fn request(body: &str, login: Option<&str>) -> String {
    let header = login.map(|login| format!("<s:Header>{login}</s:Header>")).unwrap_or_default();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:tds=\"http://www.onvif.org/ver10/device/wsdl\" \
         xmlns:trt=\"http://www.onvif.org/ver10/media/wsdl\" \
         xmlns:tr2=\"http://www.onvif.org/ver20/media/wsdl\" \
         xmlns:tt=\"http://www.onvif.org/ver10/schema\">{header}<s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// A WS-Security header with a user name token: the password is proven by a digest over nonce and time.
///
/// `camera_unix_millis` is the time on the camera's own clock; cameras refuse tokens that are minutes old.
/// Source: OASIS, "Web Services Security UsernameToken Profile 1.0", 3.1.
pub fn username_token(credentials: &Credentials, nonce: &[u8; 16], camera_unix_millis: i64) -> String {
    let created = civil::timestamp(camera_unix_millis);
    let mut hash = Sha1::new();
    hash.update(nonce);
    hash.update(created.as_bytes());
    hash.update(credentials.password.as_bytes());
    let digest = STANDARD.encode(hash.finalize());
    let (user, nonce) = (escape(&credentials.user), STANDARD.encode(nonce));
    const WSS: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-";
    format!(
        "<wsse:Security xmlns:wsse=\"{WSS}wssecurity-secext-1.0.xsd\" \
         xmlns:wsu=\"{WSS}wssecurity-utility-1.0.xsd\" s:mustUnderstand=\"1\"><wsse:UsernameToken>\
         <wsse:Username>{user}</wsse:Username>\
         <wsse:Password Type=\"{WSS}username-token-profile-1.0#PasswordDigest\">{digest}</wsse:Password>\
         <wsse:Nonce EncodingType=\"{WSS}soap-message-security-1.0#Base64Binary\">{nonce}</wsse:Nonce>\
         <wsu:Created>{created}</wsu:Created></wsse:UsernameToken></wsse:Security>"
    )
}

/// What stands in the body of an answer, or the fault.
pub(super) fn answer(bytes: &[u8]) -> Result<Element, SoapError> {
    let root = xml::parse(bytes)?;
    let mut body = match root {
        root if root.name == "Envelope" => {
            root.children.into_iter().find(|child| child.name == "Body").ok_or(SoapError::NotSoap)?
        }
        _ => return Err(SoapError::NotSoap),
    };
    if let Some(fault) = body.child("Fault") {
        return Err(SoapError::Fault(read_fault(fault)));
    }
    if body.children.is_empty() {
        return Err(SoapError::NotSoap);
    }
    Ok(body.children.swap_remove(0))
}

fn read_fault(fault: &Element) -> Fault {
    let mut codes = Vec::new();
    // SOAP 1.2 nests subcodes, the most precise innermost; 1.1 has one code.
    let mut level = fault.child("Code");
    while let Some(code) = level {
        codes.extend(code.text_at(&["Value"]));
        level = code.child("Subcode");
    }
    codes.extend(fault.text_at(&["faultcode"]));
    let local = |code: &str| code.rsplit(':').next().unwrap_or(code).to_ascii_lowercase();
    let codes: Vec<String> = codes.into_iter().map(local).collect();
    let says = |words: &[&str]| codes.iter().any(|code| words.contains(&code.as_str()));
    let reason = fault.text_at(&["Reason", "Text"]).or(fault.text_at(&["faultstring"])).unwrap_or_default();
    let lower = reason.to_ascii_lowercase();
    let kind =
        if says(&["notauthorized", "failedauthentication", "failedcheck", "invalidsecurity", "unauthorized"])
            || ["not authorized", "unauthorized", "authority failure", "authentication fail"]
                .iter()
                .any(|words| lower.contains(words))
        {
            FaultKind::NotAuthorized
        } else if says(&["actionnotsupported", "notsupported", "noservice", "optionalactionnotimplemented"])
            || lower.contains("not implemented")
        {
            FaultKind::NotSupported
        } else {
            FaultKind::Other
        };
    let words =
        if reason.is_empty() { codes.last().map_or("no reason given", String::as_str) } else { reason };
    Fault { kind, reason: words.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_well_formed_and_carries_its_login() {
        let credentials = Credentials { user: "o<p>".to_owned(), password: "s3cret".to_owned() };
        let token = username_token(&credentials, b"0123456789abcdef", 1_795_226_400_250);
        let root = xml::parse(request("<tds:GetServices/>", Some(&token)).as_bytes()).unwrap();
        let token = root.at(&["Header", "Security", "UsernameToken"]).unwrap();
        assert_eq!(token.text_at(&["Username"]), Some("o<p>"));
        assert_eq!(token.text_at(&["Created"]), Some("2026-11-21T02:00:00.250Z"));
        assert_eq!(token.text_at(&["Nonce"]), Some("MDEyMzQ1Njc4OWFiY2RlZg=="));
        assert!(root.at(&["Body", "GetServices"]).is_some());
        assert!(!format!("{root:?}").contains("s3cret"), "only the digest travels");
    }

    /// The example of the ONVIF Programmer's Guide, 6.1.1.3: nonce, time, password and digest are given there.
    #[test]
    fn the_digest_is_the_one_of_onvifs_guide() {
        let nonce: [u8; 16] = STANDARD.decode("LKqI6G/AikKCQrN0zqZFlg==").unwrap().try_into().unwrap();
        let mut hash = Sha1::new();
        hash.update(nonce);
        hash.update(b"2010-09-16T07:50:45Z");
        hash.update(b"userpassword");
        assert_eq!(STANDARD.encode(hash.finalize()), "tuOSpGlFlIXsozq4HFNeeGeFLEI=");
    }

    #[test]
    fn faults_of_both_soaps_are_understood() {
        let new = |codes: &str, text: &str| {
            format!(
                "<e:Envelope xmlns:e='x'><e:Body><e:Fault><e:Code><e:Value>e:Sender</e:Value>{codes}</e:Code>\
                 <e:Reason><e:Text xml:lang='en'>{text}</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>"
            )
        };
        let old = "<Envelope><Body><Fault><faultcode>SOAP-ENV:Client</faultcode>\
                   <faultstring>Authentication failure</faultstring></Fault></Body></Envelope>";
        let sub = |code: &str| format!("<e:Subcode><e:Value>{code}</e:Value></e:Subcode>");
        let nested = "<e:Subcode><e:Value>ter:InvalidArgVal</e:Value><e:Subcode>\
                      <e:Value>ter:ActionNotSupported</e:Value></e:Subcode></e:Subcode>";
        for (wire, kind) in [
            (new(&sub("ter:NotAuthorized"), "Sender not authorized"), FaultKind::NotAuthorized),
            (new(&sub("wsse:FailedAuthentication"), ""), FaultKind::NotAuthorized),
            (new("", "Sender Not Authorized"), FaultKind::NotAuthorized),
            (old.to_owned(), FaultKind::NotAuthorized),
            (new(nested, "no"), FaultKind::NotSupported),
            (new("", "Method 'x' not implemented"), FaultKind::NotSupported),
            (new(&sub("ter:InvalidArgVal"), "no such profile"), FaultKind::Other),
        ] {
            let Err(SoapError::Fault(fault)) = answer(wire.as_bytes()) else { panic!("{wire}") };
            assert_eq!(fault.kind, kind, "{wire}");
        }
        let long = new("", &"x".repeat(5_000));
        let Err(SoapError::Fault(fault)) = answer(long.as_bytes()) else { panic!() };
        assert_eq!(fault.reason.len(), MAX_REASON);
    }

    #[test]
    fn what_is_no_soap_says_so() {
        for wire in ["<html/>", "<Envelope/>", "<Envelope><Body/></Envelope>"] {
            assert_eq!(answer(wire.as_bytes()), Err(SoapError::NotSoap), "{wire}");
        }
        let body = answer(b"<Envelope><Header/><Body><Yes/></Body></Envelope>").unwrap();
        assert_eq!(body.name, "Yes");
    }
}
