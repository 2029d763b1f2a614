//! What a console says to whoever stands before a gateway: where its page is and, until it is claimed, the code for it.

use super::{complain, draw_claim};
use crate::local_name::read_announced;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// How often the announcement is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks: the name is asked for in the network before it is taken, and addresses come by DHCP.
const LOOKS: u32 = 30;

pub(super) fn welcome(state: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    let announced = announced_within(state, LOOKS);
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses: Vec<IpAddr> = interfaces
        .iter()
        .filter(|of| !of.is_loopback() && !of.is_link_local())
        .map(if_addrs::Interface::ip)
        .collect();
    for page in pages(&announced, &addresses) {
        writeln!(out, "fieldgate: {page}")?;
    }
    if announced.is_empty() {
        writeln!(
            out,
            "fieldgate: the page's address is not announced here (admin.tls is off, or discovery.announce is false)"
        )?;
    }
    match crate::access::read_claim_code(state) {
        Ok(Some(code)) => {
            writeln!(out, "fieldgate: claim code {code}")?;
            let Some(at) = announced.first() else { return Ok(ExitCode::SUCCESS) };
            writeln!(out, "fieldgate: a phone in the same network opens the page with this:")?;
            draw_claim(&code, at, out)
        }
        Ok(None) => Ok(ExitCode::SUCCESS),
        Err(error) => Ok(complain(&format!("the claim code in {} cannot be read: {error}", state.display()))),
    }
}

/// The page by each of the machine's addresses, then by its names.
fn pages(announced: &[String], addresses: &[IpAddr]) -> Vec<String> {
    let port = announced.first().and_then(|page| page.trim_end_matches('/').rsplit(':').next());
    let by_address = port.into_iter().flat_map(|port| {
        addresses.iter().map(move |address| match address {
            IpAddr::V4(address) => format!("https://{address}:{port}/"),
            IpAddr::V6(address) => format!("https://[{address}]:{port}/"),
        })
    });
    by_address.chain(announced.iter().cloned()).collect()
}

fn announced_within(state: &Path, looks: u32) -> Vec<String> {
    for look in 0..looks {
        let announced = read_announced(state).unwrap_or_default();
        if !announced.is_empty() {
            return announced.lines().map(str::to_owned).collect();
        }
        if look + 1 < looks {
            sleep(LOOK_EVERY);
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_told_by_each_address_and_by_its_name() {
        let addresses = ["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let announced = ["https://fieldgate-7f3a.local:8443/".to_owned()];
        assert_eq!(
            pages(&announced, &addresses),
            ["https://10.0.0.7:8443/", "https://[2001:db8::7]:8443/", "https://fieldgate-7f3a.local:8443/"]
        );
        assert!(pages(&[], &addresses).is_empty());
    }
}
