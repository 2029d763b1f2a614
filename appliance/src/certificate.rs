//! The certificate that the admin plane shows, where the config names no files: self-made at first, or one that was
//! uploaded. Outside the config and its revisions: a certificate is never rolled back.

use crate::local_name::LocalName;
use crate::store::{StoreFs, write_whole};
use fieldgate_net::{ServerCertificates, TlsError};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Key and certificate chain together, so that both are replaced at once.
const FILE: &str = "admin.pem";
/// What the file of a certificate that we made begins with. Readers of PEM skip it.
const SELF_MADE: &str = "self-made by fieldgate\n";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Names and addresses that a self-made certificate holds at most.
const NAMES_MAX: usize = 32;

/// Why there is no certificate, or no other one.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// What was sent is none, or the key is another one's.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// None could be made.
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
    /// The disk.
    #[error("the certificate's file cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// The certificate as it is shown. Without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CertificateView {
    /// SHA-256 of the certificate, in hex: what browsers show as its fingerprint.
    pub sha256: String,
    /// Whether the gateway made it by itself, so that browsers ask before they trust it.
    pub self_made: bool,
    /// The chain, PEM.
    pub chain: String,
}

/// Keeps the certificate's file. Calls block on the disk.
pub struct CertificateDesk {
    path: PathBuf,
    files: Mutex<Box<dyn StoreFs>>,
    local_name: LocalName,
    /// Names that the config has beside the machine's own.
    more: Mutex<Vec<String>>,
}

impl CertificateDesk {
    /// `files` is the content of `folder`.
    pub fn new(folder: &Path, files: Box<dyn StoreFs>, local_name: LocalName) -> Self {
        let more = Mutex::default();
        CertificateDesk { path: folder.join(FILE), files: Mutex::new(files), local_name, more }
    }

    /// The gateway's name in the local networks.
    pub fn local_name(&self) -> &LocalName {
        &self.local_name
    }

    /// The file with key and chain; a certificate for the machine's names and these is made if there is none.
    pub fn ensure(&self, more: &[String]) -> Result<PathBuf, CertificateError> {
        *self.more.lock().unwrap_or_else(PoisonError::into_inner) = more.to_vec();
        let mut files = self.files();
        if files.read(FILE)?.is_none() {
            write_whole(files.as_mut(), FILE, make(&self.names())?.as_bytes())?;
        }
        Ok(self.path.clone())
    }

    /// What is shown to those who connect; none before the first was made.
    pub fn view(&self) -> Result<Option<CertificateView>, CertificateError> {
        Ok(self.files().read(FILE)?.map(|bytes| view(&String::from_utf8_lossy(&bytes))))
    }

    /// Takes an own certificate: its chain, the gateway's first, and its key, both PEM.
    pub fn replace(&self, chain: &str, key: &str) -> Result<CertificateView, CertificateError> {
        ServerCertificates::check(chain.as_bytes(), key.as_bytes())?;
        let text = format!("{}\n{}\n", key.trim(), chain_of(chain));
        write_whole(self.files().as_mut(), FILE, text.as_bytes())?;
        Ok(view(&text))
    }

    /// Puts a new self-made one in its place.
    pub fn reset(&self) -> Result<CertificateView, CertificateError> {
        let text = make(&self.names())?;
        write_whole(self.files().as_mut(), FILE, text.as_bytes())?;
        Ok(view(&text))
    }

    /// The config's names first, as the certificate is called by the last.
    fn names(&self) -> Vec<String> {
        let mut names = self.more.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = self.local_name.names();
        names.retain(|name| !own.contains(name));
        names.extend(own);
        names
    }

    fn files(&self) -> MutexGuard<'_, Box<dyn StoreFs>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names and addresses by which this machine is asked: the host's name, with `.local` too, and what its interfaces have.
pub fn machine_names() -> Vec<String> {
    let system = rustix::system::uname();
    let host = system.nodename().to_str().unwrap_or_default().to_ascii_lowercase();
    let mut names = vec!["localhost".to_owned()];
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    if is_name(&host) {
        if !host.contains('.') {
            names.push(format!("{host}.local"));
        }
        names.push(host);
    }
    names.dedup();
    names
}

/// The addresses of this machine, loopback first.
pub fn machine_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    addresses.extend(found.iter().map(if_addrs::Interface::ip).filter(|ip| !ip.is_loopback()));
    addresses
}

/// Key and certificate for the machine's own names, PEM.
pub(crate) fn self_made() -> Result<String, rcgen::Error> {
    make(&machine_names())
}

/// It never expires: a gateway may run for years without a visit, and know no time at its first boot. Who connects knows
/// it by its fingerprint.
fn make(names: &[String]) -> Result<String, rcgen::Error> {
    let addresses = machine_addresses().into_iter().map(|address| address.to_string());
    let all: Vec<String> = names.iter().cloned().chain(addresses).take(NAMES_MAX).collect();
    let mut wanted = rcgen::CertificateParams::new(all)?;
    let mut name = rcgen::DistinguishedName::new();
    let called = names.iter().rfind(|name| *name != "localhost").map_or("fieldgate", String::as_str);
    name.push(rcgen::DnType::CommonName, called);
    wanted.distinguished_name = name;
    wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate()?;
    let certificate = wanted.self_signed(&key)?;
    Ok(format!("{SELF_MADE}{}{}", key.serialize_pem(), certificate.pem()))
}

fn view(file: &str) -> CertificateView {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let chain = chain_of(file);
    let first = CertificateDer::from_pem_slice(chain.as_bytes());
    let digest = first.map(|der| Sha256::digest(&der)).unwrap_or_default();
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    CertificateView { sha256, self_made: file.starts_with(SELF_MADE), chain }
}

/// The certificates of a PEM text and nothing else that may stand there.
fn chain_of(pem: &str) -> String {
    let mut chain = String::new();
    let mut rest = pem;
    while let Some((_, from)) = rest.split_once(BEGIN)
        && let Some((body, after)) = from.split_once(END)
    {
        chain.extend([BEGIN, body, END, "\n"]);
        rest = after;
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim::{Fail, SimFs};

    fn desk(files: &SimFs) -> CertificateDesk {
        CertificateDesk::new(Path::new("/nowhere"), Box::new(files.clone()), LocalName::new("fg-7f3a"))
    }

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn names() -> Vec<String> {
        vec!["gate-7.example".to_owned()]
    }

    #[test]
    fn the_first_is_self_made_once_and_serves() {
        let files = SimFs::default();
        let path = desk(&files).ensure(&names()).unwrap();
        assert_eq!(path, Path::new("/nowhere/admin.pem"));
        let first = files.read(FILE).unwrap().unwrap();
        ServerCertificates::check(&first, &first).unwrap();
        desk(&files).ensure(&names()).unwrap();
        assert_eq!(files.read(FILE).unwrap().unwrap(), first, "made once");
        let shown = desk(&files).view().unwrap().unwrap();
        assert!(shown.self_made && shown.sha256.len() == 64);
        assert!(!shown.chain.contains("KEY"), "{}", shown.chain);
        let der = rustls_pki_types::CertificateDer::from(pem_body(&shown.chain));
        // Names stand as they are in a certificate.
        for name in ["gate-7.example", "fieldgate-7f3a.local", "localhost"] {
            assert!(der.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
        }
        assert!(der.windows(6).any(|window| window == [0x87, 4, 127, 0, 0, 1]), "an address");
    }

    fn pem_body(pem: &str) -> Vec<u8> {
        use rustls_pki_types::pem::PemObject as _;
        rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn an_own_certificate_is_taken_only_with_its_key() {
        let files = SimFs::default();
        desk(&files).ensure(&names()).unwrap();
        let ((chain, key), (_, other)) = (pair("a.example"), pair("b.example"));
        for (chain, key) in [("", key.as_str()), (&chain, ""), (&chain, &other), ("x", "y"), (&key, &key)] {
            assert!(matches!(desk(&files).replace(chain, key), Err(CertificateError::Unusable(_))));
        }
        assert!(desk(&files).view().unwrap().unwrap().self_made, "what was refused changed nothing");
        let shown = desk(&files).replace(&format!("text before\r\n{chain}{key}"), &key).unwrap();
        assert!(!shown.self_made && !shown.chain.contains("PRIVATE"));
        let file = files.read(FILE).unwrap().unwrap();
        ServerCertificates::check(&file, &file).unwrap();
        assert!(desk(&files).reset().unwrap().self_made);
    }

    #[test]
    fn a_cut_after_any_step_leaves_the_old_or_the_new_pair_whole() {
        let start = SimFs::default();
        desk(&start).ensure(&names()).unwrap();
        let old = desk(&start).view().unwrap();
        let (chain, key) = pair("a.example");
        for cut in 0..6 {
            let files = start.after_cut().pop().unwrap();
            files.failing(Fail::CutBefore(cut));
            let done = desk(&files).replace(&chain, &key);
            for after in files.after_cut() {
                let found = desk(&after).view().unwrap();
                let is_new = found.as_ref().is_some_and(|found| !found.self_made);
                assert!(is_new || (found == old && done.is_err()), "cut before step {cut}");
                let file = after.read(FILE).unwrap().unwrap();
                ServerCertificates::check(&file, &file).unwrap();
            }
        }
    }
}
