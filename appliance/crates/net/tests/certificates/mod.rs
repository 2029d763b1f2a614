//! Certificates made for one test, and a folder to keep them in.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of its own for the test named `test`, empty at first.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// An authority that signs server certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Named `name`, with its certificate at `file`.
    pub(crate) fn new(name: &str, file: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(file, issuer.pem()).unwrap();
        Authority(issuer)
    }

    /// A certificate for `name` and its key, both PEM, valid in the given years.
    pub(crate) fn sign(&self, name: &str, years: std::ops::Range<i32>) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// Years in which every test runs.
pub(crate) const NOW: std::ops::Range<i32> = 2000..2200;

/// Writes a pair to `cert.pem` and `key.pem` in `folder`.
pub(crate) fn write_pair(folder: &Path, (cert, key): &(String, String)) -> (PathBuf, PathBuf) {
    let paths = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&paths.0, cert).unwrap();
    fs::write(&paths.1, key).unwrap();
    paths
}
