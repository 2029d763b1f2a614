//! A node of a mesh.

use super::listeners::check_file;
use crate::config::{Config, MeshNode, Path, Problem, SecretUrl};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (node, at) = (&config.compat.node, Path::root().field("compat").field("node"));
    if let Some(master) = &node.master {
        problems.extend(check_master(&at.field("master"), master));
        if node.master_key.is_none() {
            let problem =
                Problem::new(&at.field("master_key"), "is missing; no master takes a node without it");
            problems.push(problem);
        }
        if !node.standalone_roles.is_empty() {
            let path = at.field("standalone_roles");
            let problem = Problem::new(&path, "roles are joined only where there is no master");
            problems.push(problem.remedy("leave it out: the master gives the role"));
        }
    }
    if let Some(key) = node.master_key.as_ref().filter(|key| !key.is_kept()) {
        let is_plain = key.reveal().chars().all(|c| c.is_ascii_graphic());
        if key.reveal().is_empty() || key.reveal().len() > 256 || !is_plain {
            problems
                .push(Problem::new(&at.field("master_key"), "must be 1 to 256 printable ASCII characters"));
        }
    }
    for (name, endpoint) in node.endpoints() {
        let is_plain = endpoint.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !endpoint.starts_with('/') || !is_plain {
            let problem = "must begin with / and hold neither blanks nor #";
            problems.push(Problem::new(&at.field(name), problem).got(endpoint));
        }
    }
    check_certificate(node, &at, problems);
    if let Some(ca) = &node.ca {
        problems.extend(check_file(&at.field("ca"), ca));
    }
    if node.enabled {
        check_enabled(config, node, &at, problems);
    }
}

fn check_certificate(node: &MeshNode, at: &Path, problems: &mut Vec<Problem>) {
    let from_master = at.field("cert_from_master");
    if node.cert_from_master && (node.tls.is_none() || node.master.is_none()) {
        let problem =
            Problem::new(&from_master, "needs tls, whose certificate it is, and a master that gives it");
        problems.push(problem.remedy("set tls.listen and master, or leave it out"));
    }
    let Some(tls) = &node.tls else { return };
    let files = [("cert", &tls.cert), ("key", &tls.key)];
    for (name, file) in files {
        problems.extend(file.as_ref().and_then(|file| check_file(&at.field("tls").field(name), file)));
    }
    match files.map(|(_, file)| file.is_some()) {
        [true, true] if node.cert_from_master => {
            let problem = Problem::new(&from_master, "tls.cert and tls.key name another certificate");
            problems.push(problem.remedy("leave out one of the two"));
        }
        [true, false] => problems.push(Problem::new(&at.field("tls").field("key"), "is missing beside cert")),
        [false, true] => problems.push(Problem::new(&at.field("tls").field("cert"), "is missing beside key")),
        _ => {}
    }
}

fn check_enabled(config: &Config, node: &MeshNode, at: &Path, problems: &mut Vec<Problem>) {
    if config.rtmp.listen.is_empty() && config.rtmp.tls.is_none() {
        let problem =
            Problem::new(&at.field("enabled"), "a node without an RTMP listener can neither take nor pass");
        problems.push(problem.remedy("add an address to rtmp.listen, such as \"0.0.0.0:1935\""));
    }
    if (!node.listen.is_empty() || node.tls.is_some()) && node.master.is_none() && node.master_key.is_none() {
        let problem = Problem::new(&at.field("master_key"), "is missing; nobody could use the API in listen");
        problems.push(problem);
    }
}

fn check_master(path: &Path, master: &str) -> Option<Problem> {
    let url = SecretUrl::new(master);
    let parts = match url.parts() {
        Ok(parts) => parts,
        Err(error) => return Some(Problem::new(path, error.to_string()).got(url.redacted())),
    };
    let is_http = ["http", "https"].iter().any(|scheme| parts.scheme.eq_ignore_ascii_case(scheme));
    if !is_http {
        return Some(Problem::new(path, "scheme must be http or https").got(parts.scheme));
    }
    if parts.user.is_some() || parts.query.is_some() || master.contains('#') {
        let problem = "must be an address without user, query and part after #";
        return Some(Problem::new(path, problem).got(url.redacted()));
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::validate;
    use serde_json::{Value, json};

    fn problems(node: &Value) -> Vec<String> {
        let mut whole = json!({"enabled": true, "master": "https://m.example", "master_key": "k"});
        whole.as_object_mut().unwrap().extend(node.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(json!({"compat": {"node": whole}})).unwrap();
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_comes_from_files_from_the_master_or_from_the_gateway() {
        let tls = |more: Value| {
            let mut tls = json!({"listen": ["0.0.0.0:7511"]});
            tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            tls
        };
        let files = json!({"cert": "/c.pem", "key": "/k.pem", "reload_interval": "1m"});
        for fine in [
            json!({"tls": tls(json!({}))}),
            json!({"tls": tls(files.clone())}),
            json!({"tls": tls(json!({})), "cert_from_master": true, "cert_endpoint": "/certificate"}),
        ] {
            assert_eq!(problems(&fine), [""; 0], "{fine}");
        }
        for (wrong, place, part) in [
            (json!({"tls": tls(json!({"cert": "/c.pem"}))}), "tls.key", "missing"),
            (json!({"tls": tls(json!({"key": "/k.pem"}))}), "tls.cert", "missing"),
            (json!({"tls": tls(json!({"cert": "c.pem", "key": "/k.pem"}))}), "tls.cert", "absolute"),
            (json!({"tls": {"listen": []}}), "tls.listen", "at least 1"),
            (json!({"tls": tls(json!({})), "listen": ["0.0.0.0:7511"]}), "tls.listen[0]", "taken"),
            (json!({"tls": tls(files), "cert_from_master": true}), "cert_from_master", "another"),
            (json!({"cert_from_master": true}), "cert_from_master", "needs tls"),
            (
                json!({"tls": tls(json!({})), "cert_from_master": true, "master": null}),
                "cert_from_master",
                "master",
            ),
            (json!({"cert_endpoint": "cert"}), "cert_endpoint", "begin with /"),
        ] {
            let (place, found) = (format!("compat.node.{place}: "), problems(&wrong));
            assert!(
                found.iter().any(|text| text.starts_with(&place) && text.contains(part)),
                "{wrong}: {found:#?}"
            );
        }
    }
}
