//! The camera's services: device, media 1, media 2.

use super::http::Answer;
use super::{Shared, auth};

/// The name of the call in a message.
pub(super) fn action(message: &str) -> String {
    let (_, body) = message.split_once(":Body>").expect("a SOAP body");
    let name = body.trim_start_matches('<').split([' ', '>', '/']).next().unwrap();
    name.rsplit(':').next().unwrap().to_owned()
}

pub(super) fn answer(shared: &Shared, action: &str, message: &str) -> Answer {
    let settings = &shared.settings;
    let is_media2 = message.contains("<tr2:");
    let has_service = if is_media2 { settings.media2 } else { settings.media1 };
    let host = settings.names_host.clone().unwrap_or_else(|| shared.http.to_string());
    let body = match action {
        "GetSystemDateAndTime" => {
            let [year, month, day, hour, minute, second] = auth::calendar(auth::now(shared));
            format!(
                "<tds:SystemDateAndTime><tt:DateTimeType>Manual</tt:DateTimeType><tt:UTCDateTime>\
                 <tt:Time><tt:Hour>{hour}</tt:Hour><tt:Minute>{minute}</tt:Minute><tt:Second>{second}</tt:Second></tt:Time>\
                 <tt:Date><tt:Year>{year}</tt:Year><tt:Month>{month}</tt:Month><tt:Day>{day}</tt:Day></tt:Date>\
                 </tt:UTCDateTime></tds:SystemDateAndTime>"
            )
        }
        "GetServices" if settings.no_get_services => return fault(500, "ActionNotSupported"),
        "GetServices" => {
            let service = |on: bool, version: &str, path: &str| {
                let text = format!(
                    "<tds:Service><tds:Namespace>http://www.onvif.org/{version}/media/wsdl</tds:Namespace>\
                     <tds:XAddr>http://{host}/onvif/{path}</tds:XAddr></tds:Service>"
                );
                if on { text } else { String::new() }
            };
            service(settings.media1, "ver10", "media") + &service(settings.media2, "ver20", "media2")
        }
        "GetCapabilities" => format!(
            "<tds:Capabilities><tt:Media><tt:XAddr>http://{host}/onvif/media</tt:XAddr></tt:Media></tds:Capabilities>"
        ),
        "GetDeviceInformation" => "<tds:Manufacturer>Field</tds:Manufacturer><tds:Model>FC-200</tds:Model>\
             <tds:FirmwareVersion>1.2.3</tds:FirmwareVersion><tds:SerialNumber>SN42</tds:SerialNumber>\
             <tds:HardwareId>7</tds:HardwareId>"
            .to_owned(),
        "GetNetworkInterfaces" => "<tds:NetworkInterfaces token=\"eth0\"><tt:Info><tt:Name>eth0</tt:Name>\
             <tt:HwAddress>00:11:22:AA:BB:CC</tt:HwAddress></tt:Info></tds:NetworkInterfaces>"
            .to_owned(),
        "GetProfiles" if has_service => {
            profile(shared, is_media2, "main", 1920, 1080) + &profile(shared, is_media2, "sub", 640, 360)
        }
        "GetStreamUri" if has_service => {
            let token = auth::text_of(message, "ProfileToken").unwrap();
            // The port is the camera's own in any case; only the host may be a lie.
            let host = settings.names_host.as_deref().map_or_else(
                || shared.rtsp.ip().to_string(),
                |host| host.split(':').next().unwrap().to_owned(),
            );
            let uri =
                format!("rtsp://{host}:{}/{token}", settings.streams_port.unwrap_or(shared.rtsp.port()));
            if is_media2 {
                format!("<tr2:Uri>{uri}</tr2:Uri>")
            } else {
                format!("<trt:MediaUri><tt:Uri>{uri}</tt:Uri></trt:MediaUri>")
            }
        }
        "GetSnapshotUri" if has_service => {
            let uri = format!("http://{host}/snapshot.jpg");
            if is_media2 {
                format!("<tr2:Uri>{uri}</tr2:Uri>")
            } else {
                format!("<trt:MediaUri><tt:Uri>{uri}</tt:Uri></trt:MediaUri>")
            }
        }
        "GetVideoEncoderConfigurationOptions" if has_service => options(is_media2),
        "SetVideoEncoderConfiguration" if has_service => {
            let gop = match message.split_once("GovLength=\"") {
                Some((_, rest)) => rest.split('"').next(),
                None => auth::text_of(message, "GovLength"),
            };
            shared.state().gop = gop.unwrap().parse().unwrap();
            String::new()
        }
        "SetSystemDateAndTime" => {
            shared.state().clock_was_set = true;
            String::new()
        }
        "SystemReboot" => {
            shared.state().reboots += 1;
            "<tds:Message>Rebooting in 30 seconds</tds:Message>".to_owned()
        }
        _ => return fault(400, "ActionNotSupported"),
    };
    Answer { status: 200, body: envelope(&format!("<tds:{action}Response>{body}</tds:{action}Response>")) }
}

pub(super) fn fault(status: u16, code: &str) -> Answer {
    let body = format!(
        "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:{code}</s:Value></s:Subcode></s:Code>\
         <s:Reason><s:Text xml:lang=\"en\">{code}</s:Text></s:Reason></s:Fault>"
    );
    Answer { status, body: envelope(&body) }
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:tds=\"http://www.onvif.org/ver10/device/wsdl\" xmlns:trt=\"http://www.onvif.org/ver10/media/wsdl\" \
         xmlns:tr2=\"http://www.onvif.org/ver20/media/wsdl\" xmlns:tt=\"http://www.onvif.org/ver10/schema\" \
         xmlns:ter=\"http://www.onvif.org/ver10/error\"><s:Body>{body}</s:Body></s:Envelope>\n"
    )
}

fn profile(shared: &Shared, media2: bool, token: &str, width: u32, height: u32) -> String {
    let gop = shared.state().gop;
    let common = format!(
        "<tt:Name>ve-{token}</tt:Name><tt:UseCount>1</tt:UseCount><tt:Encoding>H264</tt:Encoding>\
         <tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{height}</tt:Height></tt:Resolution>"
    );
    if media2 {
        return format!(
            "<tr2:Profiles token=\"{token}\" fixed=\"true\"><tr2:Name>{token} stream</tr2:Name><tr2:Configurations>\
             <tr2:VideoEncoder token=\"ve-{token}\" GovLength=\"{gop}\" Profile=\"Main\">{common}<tt:RateControl>\
             <tt:FrameRateLimit>25</tt:FrameRateLimit><tt:BitrateLimit>4096</tt:BitrateLimit></tt:RateControl>\
             <tt:Quality>4</tt:Quality></tr2:VideoEncoder></tr2:Configurations></tr2:Profiles>"
        );
    }
    format!(
        "<trt:Profiles token=\"{token}\" fixed=\"true\"><tt:Name>{token} stream</tt:Name>\
         <tt:VideoEncoderConfiguration token=\"ve-{token}\">{common}<tt:Quality>4</tt:Quality><tt:RateControl>\
         <tt:FrameRateLimit>25</tt:FrameRateLimit><tt:EncodingInterval>1</tt:EncodingInterval>\
         <tt:BitrateLimit>4096</tt:BitrateLimit></tt:RateControl><tt:H264><tt:GovLength>{gop}</tt:GovLength>\
         <tt:H264Profile>Main</tt:H264Profile></tt:H264><tt:SessionTimeout>PT60S</tt:SessionTimeout>\
         </tt:VideoEncoderConfiguration></trt:Profiles>"
    )
}

fn options(media2: bool) -> String {
    if media2 {
        return "<tr2:Options GovLengthRange=\"1 400\" FrameRatesSupported=\"25 20 12.5\"><tt:Encoding>H264</tt:Encoding>\
            <tt:BitrateRange><tt:Min>32</tt:Min><tt:Max>8192</tt:Max></tt:BitrateRange></tr2:Options>"
            .to_owned();
    }
    "<trt:Options><tt:H264><tt:GovLengthRange><tt:Min>1</tt:Min><tt:Max>400</tt:Max></tt:GovLengthRange></tt:H264>\
     </trt:Options>"
        .to_owned()
}
