//! RTMP addresses.

/// `rtmp[s]://host[:port]/app[/instance]/key?query`. `Display` and `Debug` hide userinfo, query values and the key.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    /// rtmps.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Default 1935, rtmps 443.
    pub port: u16,
    /// Application, with instance if any.
    pub app: String,
    /// For `connect`.
    pub tc_url: String,
    /// Stream name with query.
    pub stream_key: String,
}
/// Not an RTMP address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither rtmp nor rtmps.
    #[error("scheme must be rtmp or rtmps")]
    Scheme,
}
impl RtmpUrl {
    /// Parses.
    pub fn parse(_url: &str) -> Result<RtmpUrl, UrlError> {
        Err(UrlError::Scheme)
    }
}
/// The value of `name` in a query string, percent-decoded.
pub(super) fn query_param(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, v)| v.to_string()))
}
