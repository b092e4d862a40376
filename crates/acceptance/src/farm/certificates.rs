//! Certificates for an engine and for whoever speaks with it, as files.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

/// The files of one engine, all signed by an authority of its own.
pub(crate) struct Certificates {
    /// The authority's certificate.
    pub(crate) authority: PathBuf,
    /// What the engine shows.
    pub(crate) engine: Pair,
    /// What is shown to the engine.
    pub(crate) client: Pair,
}

/// The files of one certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes them for an engine at an address, in a directory.
    pub(crate) fn make(address: IpAddr, directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = write(directory, "ca.pem", &params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let sign = |name: &str, names: Vec<SanType>, usage| -> Result<Pair> {
            let mut params = CertificateParams::new([])?;
            params.subject_alt_names = names;
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok(Pair {
                certificate: write(directory, &format!("{name}-cert.pem"), &certificate)?,
                key: write(directory, &format!("{name}-key.pem"), &key.serialize_pem())?,
            })
        };
        let engine = sign("engine", vec![SanType::IpAddress(address)], ExtendedKeyUsagePurpose::ServerAuth)?;
        let client = sign("client", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self { authority, engine, client })
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    // A key that others can read is refused.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(path)
}
