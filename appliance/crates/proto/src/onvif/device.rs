//! The device service: who the camera is, what it offers, its clock, a reboot.
//!
//! Source: ONVIF Core Specification, "Device management", and `ver10/device/wsdl`.

use super::civil;
use super::ws_discovery::{cut, mac};
use super::xml::Element;

/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 128;
/// Most Ethernet addresses that are kept.
const MAX_MACS: usize = 4;
/// Most services that are looked at.
const MAX_SERVICES: usize = 64;

/// Who a camera is, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The maker.
    pub make: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Ethernet addresses, as `00:11:22:aa:bb:cc`.
    pub macs: Vec<String>,
}

/// Where a camera's other services are, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// Media, version 1.
    pub(super) media1: Option<String>,
    /// Media, version 2.
    pub(super) media2: Option<String>,
}

/// What a camera says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceTime {
    /// Seconds since 1970.
    pub(super) unix_seconds: i64,
}

pub(super) const GET_TIME: &str = "<tds:GetSystemDateAndTime/>";
pub(super) const GET_SERVICES: &str =
    "<tds:GetServices><tds:IncludeCapability>false</tds:IncludeCapability></tds:GetServices>";
pub(super) const GET_CAPABILITIES: &str =
    "<tds:GetCapabilities><tds:Category>All</tds:Category></tds:GetCapabilities>";
pub(super) const GET_INFORMATION: &str = "<tds:GetDeviceInformation/>";
pub(super) const GET_INTERFACES: &str = "<tds:GetNetworkInterfaces/>";
pub(super) const REBOOT: &str = "<tds:SystemReboot/>";

/// Sets the clock by hand; the time zone stays.
pub(super) fn set_time(unix_seconds: i64) -> String {
    let ([year, month, day], [hour, minute, second]) = civil::from_unix(unix_seconds);
    format!(
        "<tds:SetSystemDateAndTime><tds:DateTimeType>Manual</tds:DateTimeType>\
         <tds:DaylightSavings>false</tds:DaylightSavings><tds:UTCDateTime>\
         <tt:Time><tt:Hour>{hour}</tt:Hour><tt:Minute>{minute}</tt:Minute><tt:Second>{second}</tt:Second></tt:Time>\
         <tt:Date><tt:Year>{year}</tt:Year><tt:Month>{month}</tt:Month><tt:Day>{day}</tt:Day></tt:Date>\
         </tds:UTCDateTime></tds:SetSystemDateAndTime>"
    )
}

/// The clock in a `GetSystemDateAndTimeResponse`; nothing if it tells no UTC.
pub(super) fn time(answer: &Element) -> Option<DeviceTime> {
    let utc = answer.at(&["SystemDateAndTime", "UTCDateTime"])?;
    let number = |path: [&str; 2]| utc.text_at(&path)?.parse::<i64>().ok();
    let date = [number(["Date", "Year"])?, number(["Date", "Month"])?, number(["Date", "Day"])?];
    let time = [number(["Time", "Hour"])?, number(["Time", "Minute"])?, number(["Time", "Second"])?];
    civil::to_unix(date, time).map(|unix_seconds| DeviceTime { unix_seconds })
}

/// The services in a `GetServicesResponse`.
pub(super) fn services(answer: &Element) -> Services {
    let mut services = Services::default();
    for service in answer.all("Service").take(MAX_SERVICES) {
        let (Some(namespace), Some(xaddr)) = (service.text_at(&["Namespace"]), service.text_at(&["XAddr"]))
        else {
            continue;
        };
        let namespace = namespace.to_ascii_lowercase();
        if namespace.contains("/ver20/media") {
            services.media2 = services.media2.take().or(Some(xaddr.to_owned()));
        } else if namespace.contains("/ver10/media") {
            services.media1 = services.media1.take().or(Some(xaddr.to_owned()));
        }
    }
    services
}

/// The services in a `GetCapabilitiesResponse`, the older call.
pub(super) fn capabilities(answer: &Element) -> Services {
    let at = |path: &[&str]| answer.text_at(path).map(str::to_owned);
    Services {
        media1: at(&["Capabilities", "Media", "XAddr"]),
        media2: at(&["Capabilities", "Extension", "Media2", "XAddr"]),
    }
}

/// Who it is, in a `GetDeviceInformationResponse`.
pub(super) fn information(answer: &Element) -> Identity {
    let text = |name: &str| {
        let text = cut(answer.text_at(&[name])?, MAX_TEXT);
        (!text.is_empty()).then_some(text)
    };
    Identity {
        make: text("Manufacturer"),
        model: text("Model"),
        firmware: text("FirmwareVersion"),
        serial: text("SerialNumber"),
        macs: Vec::new(),
    }
}

/// Ethernet addresses in a `GetNetworkInterfacesResponse`.
pub(super) fn macs(answer: &Element) -> Vec<String> {
    let mut macs: Vec<String> = Vec::new();
    for interface in answer.all("NetworkInterfaces") {
        let address = interface.text_at(&["Info", "HwAddress"]).and_then(mac);
        macs.extend(address.filter(|address| !macs.contains(address)));
    }
    macs.truncate(MAX_MACS);
    macs
}

#[cfg(test)]
mod tests {
    use super::super::soap;
    use super::*;

    fn body(text: &str) -> Element {
        let wire = format!("<Envelope><Body>{text}</Body></Envelope>");
        soap::answer(wire.as_bytes()).unwrap()
    }

    #[test]
    fn the_clock_is_read_and_set_in_utc() {
        let answer = body(
            "<r><SystemDateAndTime><DateTimeType>NTP</DateTimeType><UTCDateTime><Time><Hour>2</Hour><Minute>0</Minute>\
             <Second>5</Second></Time><Date><Year>2026</Year><Month>11</Month><Day>21</Day></Date></UTCDateTime>\
             </SystemDateAndTime></r>",
        );
        assert_eq!(time(&answer), Some(DeviceTime { unix_seconds: 1_795_226_405 }));
        assert_eq!(time(&body("<r><SystemDateAndTime/></r>")), None);
        let set = body(&set_time(1_795_226_405).replace("tds:", "").replace("tt:", ""));
        let again = Element {
            children: vec![Element { name: "SystemDateAndTime".to_owned(), ..set }],
            ..Element::default()
        };
        assert_eq!(time(&again), Some(DeviceTime { unix_seconds: 1_795_226_405 }));
    }

    #[test]
    fn services_are_known_by_their_namespaces() {
        let answer = body(
            "<r><Service><Namespace>http://www.onvif.org/ver20/media/wsdl</Namespace><XAddr>http://h/2</XAddr></Service>\
             <Service><Namespace>http://www.onvif.org/ver10/media/wsdl</Namespace><XAddr>http://h/1</XAddr></Service>\
             <Service><Namespace>http://www.onvif.org/ver10/events/wsdl</Namespace><XAddr>http://h/e</XAddr></Service></r>",
        );
        let found = services(&answer);
        assert_eq!(
            (found.media1.as_deref(), found.media2.as_deref()),
            (Some("http://h/1"), Some("http://h/2"))
        );
        let old = body("<r><Capabilities><Media><XAddr>http://h/m</XAddr></Media></Capabilities></r>");
        assert_eq!(capabilities(&old), Services { media1: Some("http://h/m".to_owned()), media2: None });
    }

    #[test]
    fn identity_is_cut_and_doubles_go() {
        let answer =
            body(&format!("<r><Manufacturer>{}</Manufacturer><Model> </Model></r>", "m".repeat(999)));
        let identity = information(&answer);
        assert_eq!((identity.make.map(|make| make.len()), identity.model), (Some(MAX_TEXT), None));
        let card =
            "<NetworkInterfaces><Info><HwAddress>00-11-22-AA-BB-CC</HwAddress></Info></NetworkInterfaces>";
        assert_eq!(macs(&body(&format!("<r>{}</r>", card.repeat(9)))), ["00:11:22:aa:bb:cc"]);
    }
}
