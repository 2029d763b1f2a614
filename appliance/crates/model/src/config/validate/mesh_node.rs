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
    if let Some(ca) = &node.ca {
        problems.extend(check_file(&at.field("ca"), ca));
    }
    if node.enabled {
        check_enabled(config, node, &at, problems);
    }
}

fn check_enabled(config: &Config, node: &MeshNode, at: &Path, problems: &mut Vec<Problem>) {
    if config.rtmp.listen.is_empty() && config.rtmp.tls.is_none() {
        let problem =
            Problem::new(&at.field("enabled"), "a node without an RTMP listener can neither take nor pass");
        problems.push(problem.remedy("add an address to rtmp.listen, such as \"0.0.0.0:1935\""));
    }
    if !node.listen.is_empty() && node.master.is_none() && node.master_key.is_none() {
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
