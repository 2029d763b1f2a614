//! The node's own HTTP API: who may ask what, and how the answers look.

use super::{Key, Node, Question, Role, hook, tables};
use crate::{Reply, Request, percent};
use serde_json::{Value, json};

/// Name of the one log that there is: the last lines, in memory.
pub const LOG: &str = "fieldgate.log";

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The lines of the log that these numbers and this logger leave.
    Log {
        /// So many lines are left out first.
        start: usize,
        /// Then so many are kept.
        end: usize,
        /// Only lines that hold this.
        logger: Option<String>,
    },
    /// [`server_statistics`].
    Server,
    /// [`Element::json`] of the statistics.
    Json,
    /// [`Element::xml`] of the statistics.
    Xml,
    /// The publisher of a stream is dropped; the answer is how many were.
    DropPublisher {
        /// `live` or `relay`; `None`: whichever it is in.
        app: Option<String>,
        /// The stream.
        stream_id: String,
    },
    /// The viewers of a stream are dropped.
    DropViewers {
        /// As the statistics show it, or that the viewer came by; `None`: whichever it is.
        app: Option<String>,
        /// The stream.
        stream_id: String,
    },
    /// New tables.
    Tables(Vec<u8>),
    /// [`shown_role`].
    ShownRole,
    /// Another role.
    Role(Role),
    /// An old media server asks about a peer; [`super::judged`] is the answer.
    Peer(Question),
}

/// Reads a request: what it wants, or what it is answered at once. `local_only`: statistics and control are for this
/// machine alone; else others need a secret for them.
pub fn wanted(node: &Node, master_key: &Key, local_only: bool, request: &Request) -> Result<Wanted, Reply> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let method = request.method.as_str();
    if method == "OPTIONS" {
        return Err(plain(204, ""));
    }
    let is_local = request.peer.to_canonical().is_loopback();
    let is_public = path.starts_with("/public/") || path == "/public";
    if !is_public && local_only && !is_local {
        return Err(plain(403, "Forbidden"));
    }
    if (is_public || !is_local) && !is_authorised(node, master_key, request) {
        return Err(plain(401, "Unauthorized"));
    }
    if path == "/public/relay_table" {
        return match method {
            "PUT" => Ok(Wanted::Tables(request.body.clone())),
            _ => Err(plain(405, "Method Not Allowed")),
        };
    }
    if path == "/public/role" && method == "PUT" {
        let role = role_of(&request.body).map(Wanted::Role);
        return role
            .ok_or_else(|| plain(400, "the body must be {\"mode\": \"ingest\"}, or root_relay, or relay"));
    }
    if !matches!(method, "GET" | "POST") {
        return Err(plain(405, "Method Not Allowed"));
    }
    match path {
        "/public/logs" => Err(document(&json!([LOG]))),
        "/public/role" => Ok(Wanted::ShownRole),
        "/public/statistics/nginx" => Ok(Wanted::Json),
        "/public/statistics/server" => Ok(Wanted::Server),
        "/statistics" => Ok(Wanted::Xml),
        "/control/drop/publisher" => {
            Ok(Wanted::DropPublisher { app: application(query), stream_id: field(query, "name") })
        }
        "/control/drop/client" => {
            Ok(Wanted::DropViewers { app: application(query), stream_id: field(query, "name") })
        }
        "/private/publish" => {
            hook::question("publish", query, request).map(Wanted::Peer).ok_or_else(hook::refused)
        }
        "/private/play" => hook::question("play", query, request).map(Wanted::Peer).ok_or_else(hook::refused),
        _ => match path.strip_prefix("/public/logs/") {
            Some("latest" | LOG) => {
                let number = |name, default| field(query, name).parse().unwrap_or(default);
                let logger = Some(field(query, "logger")).filter(|logger| !logger.is_empty());
                Ok(Wanted::Log { start: number("start", 0), end: number("end", usize::MAX), logger })
            }
            Some(_) => Err(plain(404, "Log not found")),
            None => Err(plain(404, "Not found")),
        },
    }
}

/// The master's secret for this node, or the shared key; never an empty one.
fn is_authorised(node: &Node, master_key: &Key, request: &Request) -> bool {
    let header = |name: &str| {
        let found = request.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    // Both are looked at, so that the time says nothing of which one it was.
    let (by_secret, by_key) =
        (node.is_secret(header("nodesecret")), master_key.matches(header("authorization")));
    by_secret || by_key
}

/// A field of a query, decoded; empty if it is not there.
fn field(query: &str, name: &str) -> String {
    let mut fields = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = fields.find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    percent::of_field(value).chars().take(256).collect()
}

/// The application that a session must be in, if one is named.
fn application(query: &str) -> Option<String> {
    Some(field(query, "app")).filter(|app| !app.is_empty())
}

fn role_of(body: &[u8]) -> Option<Role> {
    let document: Value = serde_json::from_slice(body).ok()?;
    Role::parse(document.get("mode")?.as_str()?)
}

/// What role the node has.
pub fn shown_role(node: &Node) -> Reply {
    document(&json!({"mode": node.roles().shown().word()}))
}

/// What a new role gets.
pub fn role_taken() -> Reply {
    plain(204, "")
}

/// What log lines a request gets.
pub fn log(lines: &str, start: usize, end: usize, logger: Option<&str>) -> Reply {
    let fitting = lines.lines().filter(|line| logger.is_none_or(|logger| line.contains(logger)));
    let mut text = String::new();
    for line in fitting.skip(start).take(end) {
        text.push_str(line);
        text.push('\n');
    }
    plain(200, &text)
}

/// One second of the machine: time of day, and its four numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Seconds since 1970.
    pub unix: i64,
    /// Percent.
    pub cpu: f64,
    /// Percent.
    pub ram: f64,
    /// Megabits per second received.
    pub rx_mbps: f64,
    /// Megabits per second sent.
    pub tx_mbps: f64,
}

/// The machine's last seconds as a chart; the newest stands last.
pub fn server_statistics(seconds: &[Second]) -> Reply {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let set = |name: &str, of: fn(&Second) -> f64| {
        let values: Vec<f64> = seconds.iter().map(|second| rounded(of(second))).collect();
        json!({"name": name, "type": "line", "values": values})
    };
    let labels: Vec<String> = seconds.iter().map(|second| time_of_day(second.unix)).collect();
    let sets = [
        set("CPU%", |second| second.cpu),
        set("RAM%", |second| second.ram),
        set("NET RX (Mbps)", |second| second.rx_mbps),
        set("NET TX (Mbps)", |second| second.tx_mbps),
    ];
    document(&json!({"data": {"datasets": sets, "labels": labels}, "message": "Success"}))
}

fn time_of_day(unix: i64) -> String {
    let second = unix.rem_euclid(86_400);
    let part = |size: i64, of: i64| second.checked_div(size).unwrap_or(0).rem_euclid(of);
    format!("{:02}:{:02}:{:02}", part(3600, 24), part(60, 60), part(1, 60))
}

/// An element of the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// With a text; an empty one for an empty element.
    Text(String),
    /// With others in it, by name.
    Of(Vec<(&'static str, Element)>),
}

impl Element {
    /// One with what displays as a text.
    pub fn text(text: impl ToString) -> Element {
        Element::Text(text.to_string())
    }

    /// As XML, `name` around it.
    pub fn xml(&self, name: &str) -> Reply {
        let mut out = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n".to_owned();
        self.write(name, &mut out);
        out.push('\n');
        reply(200, "text/xml", out)
    }

    fn write(&self, name: &str, out: &mut String) {
        match self {
            Element::Text(text) if text.is_empty() => out.push_str(&format!("<{name}/>")),
            Element::Text(text) => {
                // Peers give some of them.
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                out.push_str(&format!("<{name}>{text}</{name}>"));
            }
            Element::Of(children) => {
                out.push_str(&format!("<{name}>"));
                children.iter().for_each(|(name, child)| child.write(name, out));
                out.push_str(&format!("</{name}>"));
            }
        }
    }

    /// As JSON, the way an XML reader makes it: texts are texts, empty elements null, one child of a name an object and
    /// several a list.
    pub fn json(&self, name: &str) -> Reply {
        document(&json!({ name: self.value() }))
    }

    fn value(&self) -> Value {
        match self {
            Element::Text(text) if text.is_empty() => Value::Null,
            Element::Text(text) => Value::String(text.clone()),
            Element::Of(children) => {
                let mut object = serde_json::Map::new();
                for (name, child) in children {
                    match object.get_mut(*name) {
                        None => {
                            object.insert((*name).to_owned(), child.value());
                        }
                        Some(Value::Array(list)) => list.push(child.value()),
                        Some(one) => *one = Value::Array(vec![one.take(), child.value()]),
                    }
                }
                Value::Object(object)
            }
        }
    }
}

/// What a request for a drop gets: how many there were.
pub fn dropped(count: usize) -> Reply {
    plain(200, &count.to_string())
}

/// What a push of tables gets.
pub fn taken(outcome: &Result<(), tables::TableError>) -> Reply {
    match outcome {
        Ok(()) => plain(204, ""),
        Err(error) => plain(400, &error.to_string()),
    }
}

fn document(value: &Value) -> Reply {
    reply(200, "application/json", value.to_string())
}

pub(super) fn plain(status: u16, text: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", text.to_owned())
}

fn reply(status: u16, kind: &str, body: String) -> Reply {
    let headers = [
        ("content-type", kind),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", "Authorization, NodeSecret, Content-Type"),
    ];
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Reply { status, headers: headers.collect(), body: body.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::announced_node;
    use super::*;
    use std::net::IpAddr;

    fn ask_from(
        node: &Node,
        peer: [u8; 4],
        method: &str,
        target: &str,
        header: (&str, &str),
    ) -> Result<Wanted, u16> {
        let request = Request {
            method: method.into(),
            target: target.into(),
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            body: Vec::new(),
            peer: IpAddr::from(peer),
        };
        wanted(node, &Key::new("master-key"), true, &request).map_err(|reply| reply.status)
    }

    fn ask(node: &Node, target: &str, header: (&str, &str)) -> Result<Wanted, u16> {
        ask_from(node, [192, 0, 2, 1], "GET", target, header)
    }

    #[test]
    fn check_20_a_secret_or_the_key_opens_and_nothing_else() {
        let (node, fresh) = (announced_node(true), announced_node(false));
        for target in ["/public/logs", "/public/statistics/server", "/public/anything"] {
            for (name, value) in
                [("x", ""), ("nodesecret", ""), ("authorization", ""), ("authorization", "secret-1")]
            {
                assert_eq!(ask(&node, target, (name, value)), Err(401), "{target} {name} {value}");
                assert_eq!(ask(&fresh, target, (name, value)), Err(401), "before the announcement");
            }
        }
        assert_eq!(ask(&node, "/public/logs", ("nodesecret", "secret-1")), Err(200));
        assert_eq!(ask(&node, "/public/logs", ("authorization", "master-key")), Err(200));
        assert_eq!(ask(&fresh, "/public/logs", ("nodesecret", "secret-1")), Err(401));
        assert_eq!(ask(&node, "/public/statistics/server", ("nodesecret", "secret-1")), Ok(Wanted::Server));
        let request = Request {
            method: "GET".into(),
            target: "/public/logs".into(),
            headers: vec![("authorization".into(), String::new())],
            body: Vec::new(),
            peer: IpAddr::from([127, 0, 0, 1]),
        };
        let without = wanted(&fresh, &Key::default(), false, &request).unwrap_err();
        assert_eq!(without.status, 401, "an empty key matches nothing");
    }

    #[test]
    fn check_21_the_chart_has_four_sets_in_order() {
        let seconds = [Second { unix: 86_399, cpu: 12.345, ram: 40.0, rx_mbps: 1.0, tx_mbps: 2.0 }; 10];
        let reply: Value = serde_json::from_slice(&server_statistics(&seconds).body).unwrap();
        assert_eq!(reply["message"], "Success");
        let sets = reply["data"]["datasets"].as_array().unwrap();
        let names: Vec<_> = sets.iter().map(|set| set["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["CPU%", "RAM%", "NET RX (Mbps)", "NET TX (Mbps)"]);
        assert_eq!((&sets[0]["values"][9], &sets[3]["values"][0]), (&json!(12.35), &json!(2.0)));
        assert_eq!(reply["data"]["labels"][0], "23:59:59");
    }

    #[test]
    fn check_22_only_the_log_is_a_log() {
        let (node, key) = (announced_node(true), ("authorization", "master-key"));
        for file in ["..%2f..%2fetc%2fpasswd", "../x", "a/b", "", "other.log"] {
            assert_eq!(ask(&node, &format!("/public/logs/{file}"), key), Err(404), "{file}");
        }
        let all = Wanted::Log { start: 0, end: usize::MAX, logger: None };
        assert_eq!(ask(&node, "/public/logs/latest", key), Ok(all.clone()));
        assert_eq!(ask(&node, "/public/logs/fieldgate.log?start=x", key), Ok(all));
        let some = ask(&node, "/public/logs/latest?start=1&end=2&logger=b", key);
        assert_eq!(some, Ok(Wanted::Log { start: 1, end: 2, logger: Some("b".into()) }));
        assert_eq!(log("b1\na\nb2\nb3\nb4\n", 1, 2, Some("b")).body, b"b2\nb3\n");
    }

    #[test]
    fn statistics_and_control_are_for_this_machine_unless_opened() {
        let node = announced_node(true);
        let key = ("authorization", "master-key");
        for target in [
            "/statistics",
            "/control/drop/client?name=s1",
            "/control/drop/publisher?app=live&name=s1",
            "/private/play?app=live&addr=192.0.2.9&clientid=8&call=play&name=s1",
        ] {
            assert_eq!(ask(&node, target, key), Err(403), "{target}");
            assert!(ask_from(&node, [127, 0, 0, 1], "GET", target, ("x", "")).is_ok(), "{target}");
        }
        assert_eq!(ask_from(&node, [127, 0, 0, 1], "DELETE", "/statistics", key), Err(405));
        assert_eq!(ask_from(&node, [192, 0, 2, 1], "OPTIONS", "/public/logs", ("x", "")), Err(204));
        assert_eq!(ask(&node, "/public/relay_table", key), Err(405));
        let put = ask_from(&node, [192, 0, 2, 1], "PUT", "/public/relay_table", key);
        assert_eq!(put, Ok(Wanted::Tables(Vec::new())));
        assert_eq!(ask_from(&node, [127, 0, 0, 1], "GET", "/private/publish", key), Err(400));
    }

    #[test]
    fn who_is_dropped_is_named_by_stream_and_application() {
        let node = announced_node(true);
        let ask = |target: &str| ask_from(&node, [127, 0, 0, 1], "GET", target, ("x", ""));
        let app = Some("relay".to_owned());
        assert_eq!(
            ask("/control/drop/client?app=rel%61y&name=s%2D1"),
            Ok(Wanted::DropViewers { app: app.clone(), stream_id: "s-1".into() })
        );
        assert_eq!(
            ask("/control/drop/publisher?name=s1&app=relay"),
            Ok(Wanted::DropPublisher { app, stream_id: "s1".into() })
        );
        for none in ["name=s1", "app=&name=s1"] {
            let viewers = Wanted::DropViewers { app: None, stream_id: "s1".into() };
            assert_eq!(ask(&format!("/control/drop/client?{none}")), Ok(viewers), "{none}");
            let publisher = Wanted::DropPublisher { app: None, stream_id: "s1".into() };
            assert_eq!(ask(&format!("/control/drop/publisher?{none}")), Ok(publisher), "{none}");
        }
    }

    #[test]
    fn check_16_an_operator_gives_a_role_too() {
        let node = announced_node(true);
        let put = |header: (&str, &str), body: &str| {
            let request = Request {
                method: "PUT".into(),
                target: "/public/role".into(),
                headers: vec![(header.0.to_owned(), header.1.to_owned())],
                body: body.into(),
                peer: IpAddr::from([192, 0, 2, 1]),
            };
            wanted(&node, &Key::new("master-key"), true, &request).map_err(|reply| reply.status)
        };
        let key = ("authorization", "master-key");
        assert_eq!(put(key, r#"{"mode": "RR"}"#), Ok(Wanted::Role(Role::RootRelay)));
        assert_eq!(put(("x", ""), r#"{"mode": "RR"}"#), Err(401));
        for body in ["", "relay", "{}", r#"{"mode": 1}"#, r#"{"mode": "boss"}"#] {
            assert_eq!(put(key, body), Err(400), "{body}");
        }
        assert_eq!(ask(&node, "/public/role", key), Ok(Wanted::ShownRole));
        assert_eq!(shown_role(&node).body, br#"{"mode":"relay"}"#);
    }

    #[test]
    fn statistics_read_alike_as_xml_and_json() {
        let stream = |name: &str| {
            ("stream", Element::Of(vec![("name", Element::text(name)), ("active", Element::text(""))]))
        };
        let tree = Element::Of(vec![("uptime", Element::text(81)), stream("a&\u{1}b"), stream("c")]);
        let json: Value = serde_json::from_slice(&tree.json("rtmp").body).unwrap();
        let expected = json!({"rtmp": {"uptime": "81", "stream": [{"name": "a&\u{1}b", "active": null}, {"name": "c", "active": null}]}});
        assert_eq!(json, expected);
        let xml = String::from_utf8(tree.xml("rtmp").body).unwrap();
        assert!(
            xml.contains("<rtmp><uptime>81</uptime><stream><name>a&amp;b</name><active/></stream>"),
            "{xml}"
        );
        let one = Element::Of(vec![stream("a")]);
        let json: Value = serde_json::from_slice(&one.json("rtmp").body).unwrap();
        assert!(json["rtmp"]["stream"].is_object());
    }
}
