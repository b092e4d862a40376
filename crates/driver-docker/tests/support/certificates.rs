//! Certificates, good ones and others.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use driver_docker::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

/// One that signs certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Past,
}

/// A certificate and its key, in PEM form.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names are names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// For an engine at this address.
    pub(crate) fn engine(&self, address: IpAddr, validity: Validity) -> Pair {
        self.sign(vec![SanType::IpAddress(address)], ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// For us.
    pub(crate) fn client(&self, validity: Validity) -> Pair {
        self.sign(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    fn sign(&self, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose, validity: Validity) -> Pair {
        let mut params = CertificateParams::new([]).expect("no names are names");
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        if validity == Validity::Past {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2001, 2, 1));
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes them, and the authority that the other side is to be signed by, to files of a directory.
    pub(crate) fn write(&self, directory: &Path, authority: &Authority) -> TlsFiles {
        let files = TlsFiles {
            ca_file: directory.join("ca.pem"),
            cert_file: directory.join("cert.pem"),
            key_file: directory.join("key.pem"),
        };
        fs::create_dir_all(directory).expect("the directory can be made");
        fs::write(&files.ca_file, &authority.pem).expect("it can be written");
        fs::write(&files.cert_file, &self.certificate).expect("it can be written");
        fs::write(&files.key_file, &self.key).expect("it can be written");
        fs::set_permissions(&files.key_file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        files
    }
}
