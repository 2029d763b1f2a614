//! The old aggregator's environment variables.

use crate::env::Variables;
use fieldgate_model::Config;
use fieldgate_model::config::{AggregatorCms, host_port};
use std::net::SocketAddr;

/// Port of the API, as content managers know it.
const API_PORT: u16 = 5_000;

/// Takes what an aggregator was started with. Nothing is turned on where nothing of it is there.
pub fn take_variables(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    // Parts of other variables' names.
    let [name, vendor, version] =
        ["name", "vendor", "version"].map(|part| variables.get(part).unwrap_or_default().to_owned());
    let own_ip = format!("{name}_{vendor}_{version}_rtmp_ip");
    let of_version = |what: &str| format!("vnf_{what}_eu_5gtango_{version}_api_ip");
    let mut host = |variable: &str| {
        let value = variables.take(variable)?;
        if host_port(&value).is_none() {
            notes.push(format!("{variable}: {value:?} is neither an address nor a host name; left out"));
            return None;
        }
        Some(value)
    };
    let own = host(&own_ip);
    let cms = [host("CMS_IP"), host(&of_version("cms"))].into_iter().flatten().next();
    let transcoder =
        [host(&of_version("mse_transcode")), host("STREAMING_ENGINE_INT")].into_iter().flatten().next();
    let engine = [host("STREAMING_ENGINE_EXT"), host("STREAMING_ENGINE")].into_iter().flatten().next();
    let known = [&own, &cms, &transcoder, &engine].into_iter().any(Option::is_some);
    if !known {
        return;
    }
    for part in ["name", "vendor", "version"] {
        variables.take(part);
    }
    let aggregator = &mut config.compat.aggregator;
    if aggregator.listen.is_empty() {
        aggregator.listen.push(SocketAddr::from(([0, 0, 0, 0], API_PORT)));
    }
    let short = |text: String| (text.len() <= 255).then_some(text);
    aggregator.resource_id =
        variables.take("container_name").and_then(short).or(aggregator.resource_id.take());
    let (host_name, location) = (variables.take("HOSTNAME"), variables.take("event"));
    aggregator.transcoder = transcoder.or(aggregator.transcoder.take());
    aggregator.engine = engine.or(aggregator.engine.take());
    if let Some(address) = cms {
        match own.as_deref().or(aggregator.address.as_deref()).and_then(host_port) {
            Some((host, _)) => {
                aggregator.cms = Some(AggregatorCms {
                    address,
                    name: host_name.and_then(short),
                    location: location.and_then(short).unwrap_or_else(|| "default".to_owned()),
                    own_address: host.to_owned(),
                });
            }
            None => notes.push(format!(
                "the content manager {address} is left out: {own_ip} does not say our own address; set \
                 compat.aggregator.cms"
            )),
        }
    }
    aggregator.address = own.or(aggregator.address.take());
    if aggregator.publish_allow.is_empty() {
        notes.push(
            "compat.aggregator.publish_allow is empty, so no camera can publish: name the cameras' networks"
                .to_owned(),
        );
    }
    if aggregator.stat_listen.is_empty() {
        notes.push(
            "the statistics in XML, once on port 80, are off: set compat.aggregator.stat_listen if they are read"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::import;
    use serde_json::json;

    fn imported(text: &str) -> (serde_json::Value, Vec<String>) {
        let imported = import(Variables::parse(text).unwrap(), Config::default());
        assert_eq!(fieldgate_model::config::validate(&imported.config), []);
        (serde_json::to_value(imported.config.compat.aggregator).unwrap(), imported.notes)
    }

    #[test]
    fn an_old_deployment_becomes_settings() {
        let (config, notes) = imported(
            "name=ma\nvendor=eu\nversion=0.9\nma_eu_0.9_rtmp_ip=10.0.0.2\nvnf_cms_eu_5gtango_0.9_api_ip=10.0.0.3\n\
             vnf_mse_transcode_eu_5gtango_0.9_api_ip=10.0.0.4\ncontainer_name=ma-1\nHOSTNAME=box\nevent=hall\n\
             STREAMING_ENGINE=10.0.0.5\n",
        );
        for (field, value) in [
            ("listen", json!(["0.0.0.0:5000"])),
            ("address", json!("10.0.0.2")),
            ("resource_id", json!("ma-1")),
            ("transcoder", json!("10.0.0.4")),
            ("engine", json!("10.0.0.5")),
            (
                "cms",
                json!({"address": "10.0.0.3", "name": "box", "location": "hall", "own_address": "10.0.0.2"}),
            ),
        ] {
            assert_eq!(config[field], value, "{field}");
        }
        assert_eq!(notes.len(), 2, "{notes:?}");
        let (config, _) = imported(
            "CMS_IP=1.2.3.4\nname=a\nvendor=b\nversion=c\na_b_c_rtmp_ip=::1\n\
             vnf_cms_eu_5gtango_c_api_ip=10.0.0.3\nSTREAMING_ENGINE_INT=i\nSTREAMING_ENGINE_EXT=e\n",
        );
        assert_eq!(config["cms"]["address"], "1.2.3.4", "it comes first");
        assert_eq!((&config["transcoder"], &config["engine"]), (&json!("i"), &json!("e")));
    }

    #[test]
    fn what_cannot_be_taken_is_named_and_nothing_else_turns_it_on() {
        let (config, notes) = imported("CMS_IP=10.0.0.3\nSTREAMING_ENGINE=a b\n");
        assert_eq!(config["cms"], json!(null));
        assert!(notes.iter().any(|note| note.starts_with("STREAMING_ENGINE: \"a b\"")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("10.0.0.3 is left out")), "{notes:?}");
        let (config, notes) = imported("name=x\nHOSTNAME=box\nevent=y\n");
        assert_eq!(config["listen"], json!([]));
        assert_eq!(notes.len(), 3, "{notes:?}");
    }
}
