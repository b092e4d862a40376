//! TLS to an engine: certificates out of files, read again when they change.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tracing::{error, info};

use crate::files::{self, Access, FileError, Stamp};

/// The files are looked at this often at most, and only when something is asked of the engine. Looking costs three
/// system calls, and works where notifications do not: mounts, and files that are put in the place of others.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The files of TLS to one engine, each in PEM form. Both sides show a certificate: whoever may speak to an engine is
/// root on its host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsFiles {
    /// The certificates of those who sign the engine's certificate; no others are trusted.
    pub ca_file: PathBuf,
    /// Our own certificate, with those between it and the engine's CA, if any.
    pub cert_file: PathBuf,
    /// The key of our own certificate; a secret.
    pub key_file: PathBuf,
}

/// What is wrong with the files of TLS to an engine.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be used as a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// One of them has not what it should have.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        problem: String,
    },
}

impl TlsFiles {
    /// Reads the files, and says which key of the configuration is at fault if they cannot be used.
    pub fn check(&self) -> Result<(), (&'static str, TlsError)> {
        self.load().map(|_| ())
    }

    fn load(&self) -> Result<Arc<ClientConfig>, (&'static str, TlsError)> {
        let authorities = certificates(&self.ca_file).map_err(|error| ("ca_file", error))?;
        let mut trusted = RootCertStore::empty();
        for authority in authorities {
            trusted
                .add(authority)
                .map_err(|error| ("ca_file", unfit(&self.ca_file, format!("not a certificate: {error}"))))?;
        }
        let chain = certificates(&self.cert_file).map_err(|error| ("cert_file", error))?;
        let key = private_key(&self.key_file).map_err(|error| ("key_file", error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what both versions need")
            .with_root_certificates(trusted)
            .with_client_auth_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    let problem = format!("not the key of the certificate in {}", self.cert_file.display());
                    ("key_file", unfit(&self.key_file, problem))
                }
                rustls::Error::InvalidCertificate(problem) => {
                    ("cert_file", unfit(&self.cert_file, format!("not a certificate: {problem}")))
                }
                other => ("key_file", unfit(&self.key_file, format!("cannot be used as a key: {other}"))),
            })?;
        Ok(Arc::new(config))
    }

    fn stamps(&self) -> [Stamp; 3] {
        [&self.ca_file, &self.cert_file, &self.key_file].map(|path| Stamp::of(path))
    }
}

fn unfit(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), problem: problem.into() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = files::read(path, Access::Public)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unfit(path, "holds no certificate; give one in PEM form (-----BEGIN CERTIFICATE-----)")),
        Err(error) => Err(unfit(path, format!("not in PEM form: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = files::read(path, Access::Private)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        pem::Error::NoItemsFound => unfit(
            path,
            "holds no private key; give one in PEM form, without a passphrase (-----BEGIN PRIVATE KEY-----)",
        ),
        other => unfit(path, format!("not in PEM form: {other}")),
    })
}

/// The settings of TLS to one engine, as the files have them now.
pub(crate) struct Tls {
    engine: String,
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    looked_at: Instant,
    /// A look is under way. One that hangs is to hold one thread, and not one more each second.
    looking: bool,
    /// Taken before the files were read, so that what changes meanwhile is seen as a change.
    stamps: [Stamp; 3],
    /// The last that could be used. An error only while none ever could.
    config: Result<Arc<ClientConfig>, Arc<TlsError>>,
}

impl Tls {
    /// Reads the files. If they cannot be used, they are tried again when they have changed.
    pub(crate) fn new(engine: &str, files: TlsFiles) -> Self {
        let stamps = files.stamps();
        let config = files.load().map_err(|(_, error)| Arc::new(error));
        if let Err(error) = &config {
            error!(engine, %error, "no TLS to the engine");
        }
        let state = Mutex::new(State { looked_at: Instant::now(), looking: false, stamps, config });
        Self { engine: engine.to_owned(), files, state }
    }

    /// For a new connection.
    pub(crate) async fn config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, Arc<TlsError>> {
        if self.is_due() {
            let looking = Arc::clone(self);
            // Not on the threads that everything else needs: the files may be on a slow mount. Whoever calls the engine
            // bounds the whole of it.
            let looked = tokio::task::spawn_blocking(move || looking.look());
            looked.await.expect("looking does not panic, and is not cancelled");
        }
        self.state().config.clone()
    }

    /// Whether the caller is to look at the files; others go on meanwhile with what there is.
    fn is_due(&self) -> bool {
        let mut state = self.state();
        let is_due = !state.looking && state.looked_at.elapsed() >= LOOK_INTERVAL;
        state.looking |= is_due;
        is_due
    }

    /// To be called once for each time that it is due.
    fn look(&self) {
        self.take_in();
        let mut state = self.state();
        state.looking = false;
        state.looked_at = Instant::now();
    }

    fn take_in(&self) {
        let stamps = self.files.stamps();
        if self.state().stamps == stamps {
            return;
        }
        let loaded = self.files.load().map_err(|(_, error)| Arc::new(error));
        let engine = &self.engine;
        let mut state = self.state();
        state.stamps = stamps;
        match (loaded, &state.config) {
            (Ok(config), _) => {
                info!(engine, "changed TLS files are used for new connections");
                state.config = Ok(config);
            }
            (Err(error), Ok(_)) => {
                error!(engine, %error, "changed TLS files are refused, those before stay in use: mend them");
            }
            (Err(error), Err(_)) => {
                error!(engine, %error, "no TLS to the engine");
                state.config = Err(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }
}

/// What TLS found wrong before anything was asked of the engine, in words; `None` if it is not TLS that failed.
pub(crate) fn refusal(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = find::<TlsError>(error) {
        return Some(error.to_string());
    }
    Some(match find::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(problem) => match problem {
            // The latter where another CA has the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not signed by any in ca_file: give the CA that signed it".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: renew it on the engine, and check the clocks".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: check the clocks".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for other names than the one in its address: correct the address, or give the \
                 engine a certificate with this name"
                    .to_owned()
            }
            other => format!("its certificate is refused: {other}"),
        },
        // An engine that has read a request has no more to say about certificates.
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired),
        ) => format!(
            "it refuses our certificate ({alert:?}): see that cert_file has not expired, and is of a CA that the \
             engine trusts"
        ),
        rustls::Error::InvalidMessage(_) => {
            "it does not answer in TLS: correct its address, or set it up for TLS (--tlsverify)".to_owned()
        }
        _ => return None,
    })
}

/// The first of that kind among an error and its causes. An `io::Error` hides the one that it carries.
fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        if let Some(found) = error.downcast_ref::<Arc<E>>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}
