//! Networks in allow-lists.

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network, written as `"10.0.0.0/8"`, `"2001:db8::/32"`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// Why a text is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or network such as \"10.0.0.7\" or \"10.0.0.0/8\"")]
pub struct NetworkError;

impl Network {
    /// Whether the address lies in it. An IPv4 address that came over an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it is a network of this machine alone.
    pub fn is_loopback(&self) -> bool {
        self.0.network().is_loopback() && self.0.broadcast().is_loopback()
    }

    /// As the `ipnet` type.
    pub fn get(&self) -> IpNet {
        self.0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        Ok(Network(net.map_err(|_| NetworkError)?.trunc()))
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "fieldgate-network",
            "description": "A network such as \"10.0.0.0/8\", or one address.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_a_network_of_its_own() {
        let one: Network = "10.0.0.7".parse().unwrap();
        assert!(one.contains("10.0.0.7".parse().unwrap()));
        assert!(one.contains("::ffff:10.0.0.7".parse().unwrap()), "the same host over an IPv6 socket");
        assert!(!one.contains("10.0.0.8".parse().unwrap()));
        assert_eq!(one.to_string(), "10.0.0.7/32");
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("ten".parse::<Network>().is_err());
    }

    #[test]
    fn host_bits_are_dropped() {
        assert_eq!("10.1.2.3/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert!("127.0.0.0/8".parse::<Network>().unwrap().is_loopback());
        assert!(!"0.0.0.0/0".parse::<Network>().unwrap().is_loopback());
    }
}
