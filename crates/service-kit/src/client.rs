//! HTTP clients that trust roots of their own: those that are compiled in, since an image FROM scratch has none, and
//! more from a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout};

use crate::file::{self, Access, FileError};
use crate::reload::Stamp;

/// The most bytes of a file of certificates: a distribution's whole bundle has a quarter of it.
const CA_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// The file is looked at this often at most, and only when a client is asked for. Looking costs one system call, and
/// works where notifications do not: mounts, and files that are put in the place of others.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look is waited for no longer: the file may be on a mount that hangs.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file is refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not one of certificates.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The client cannot be built.
    #[error("cannot build an http client: {0}")]
    Build(#[from] reqwest::Error),
}

/// TLS that trusts the compiled-in roots, and the certificates in `ca_file` (PEM) beside them.
pub fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let unfit = |problem: String| ClientError::Unfit { path: path.to_owned(), problem };
        let mut found = 0;
        for certificate in
            CertificateDer::pem_slice_iter(&file::read(path, CA_FILE_MAX_BYTES, Access::Public)?)
        {
            let certificate = certificate.map_err(|error| unfit(format!("not in PEM form: {error}")))?;
            roots.add(certificate).map_err(|error| unfit(format!("not a certificate: {error}")))?;
            found += 1;
        }
        if found == 0 {
            return Err(unfit(
                "holds no certificate; give one in PEM form (-----BEGIN CERTIFICATE-----)".to_owned(),
            ));
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions need")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// What a client is to have beside its roots.
type Setup = dyn Fn(ClientBuilder) -> ClientBuilder + Send + Sync;

/// A client, made anew when the file of its roots changes. What is under way then goes on with the one before.
pub struct Clients {
    ca_file: Option<PathBuf>,
    setup: Box<Setup>,
    state: Mutex<State>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clients").field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

struct State {
    client: Client,
    looked_at: Instant,
    /// A look is under way. One that hangs is to hold one thread, and not one more each second.
    looking: bool,
    /// Taken before the file was read, so that what changes meanwhile is seen as a change.
    stamp: Option<Stamp>,
}

impl Clients {
    /// With more roots from `ca_file`, and whatever else `setup` asks for.
    pub fn new(
        ca_file: Option<PathBuf>,
        setup: impl Fn(ClientBuilder) -> ClientBuilder + Send + Sync + 'static,
    ) -> Result<Self, ClientError> {
        let stamp = ca_file.as_deref().and_then(Stamp::of);
        let client = build(ca_file.as_deref(), &setup)?;
        let state = Mutex::new(State { client, looked_at: Instant::now(), looking: false, stamp });
        Ok(Self { ca_file, setup: Box::new(setup), state })
    }

    /// The client of now. A changed file that cannot be used is said in the log, and the roots before hold.
    pub async fn current(self: &Arc<Self>) -> Client {
        if self.is_due() {
            let clients = Arc::clone(self);
            // Not on the threads that everything else needs: the file may be on a slow mount.
            let looking = tokio::task::spawn_blocking(move || clients.look());
            // What there is will do where that is not over in time.
            let _ = timeout(LOOK_WAIT, looking).await;
        }
        self.state().client.clone()
    }

    /// Whether the caller is to look at the file; others go on meanwhile with what there is.
    fn is_due(&self) -> bool {
        let mut state = self.state();
        let due = self.ca_file.is_some() && !state.looking && state.looked_at.elapsed() >= LOOK_INTERVAL;
        state.looking |= due;
        due
    }

    /// To be called once for each time that it is due.
    fn look(&self) {
        if let Some(path) = &self.ca_file {
            self.take_in(path);
        }
        let mut state = self.state();
        state.looking = false;
        state.looked_at = Instant::now();
    }

    fn take_in(&self, path: &Path) {
        let stamp = Stamp::of(path);
        if stamp == self.state().stamp {
            return;
        }
        let built = build(Some(path), &*self.setup);
        let mut state = self.state();
        state.stamp = stamp;
        match built {
            Ok(client) => {
                state.client = client;
                tracing::info!(file = %path.display(), "changed roots are trusted from now on");
            }
            Err(error) => tracing::error!(%error, "changed roots refused, those before hold"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(ca_file: Option<&Path>, setup: &Setup) -> Result<Client, ClientError> {
    Ok(setup(Client::builder().tls_backend_preconfigured(tls(ca_file)?)).build()?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_the_only_one() {
        let setup = Box::new(|builder| builder);
        let client = build(None, &*setup).unwrap();
        let state = State { client, looked_at: Instant::now(), looking: false, stamp: None };
        let ca_file = Some(PathBuf::from("/nonexistent/ca.pem"));
        let clients = Clients { ca_file, setup, state: Mutex::new(state) };
        assert!(!clients.is_due());
        tokio::time::advance(LOOK_INTERVAL).await;
        assert!(clients.is_due());
        tokio::time::advance(LOOK_INTERVAL * 10).await;
        assert!(!clients.is_due(), "one is under way");
        clients.look();
        assert!(!clients.is_due(), "it is just over");
        tokio::time::advance(LOOK_INTERVAL).await;
        assert!(clients.is_due());
    }

    #[test]
    fn an_unfit_file_is_named_with_what_is_wrong() {
        for (content, wanted) in [
            (&b""[..], "holds no certificate; give one in PEM form"),
            (b"hello", "holds no certificate"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a certificate: "),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "not in PEM form: "),
            (&vec![b'x'; 1024 * 1024 + 1], "has more than 1048576 bytes"),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            let error = tls(Some(file.path())).unwrap_err().to_string();
            let named = format!("{}: ", file.path().display());
            assert!(error.starts_with(&named) && error.contains(wanted), "{wanted:?} in {error:?}");
        }
        let error = tls(Some(Path::new("/nonexistent/ca.pem"))).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/ca.pem: cannot be read: "), "{error}");
        let error = tls(Some(Path::new("/"))).unwrap_err().to_string();
        assert_eq!(error, "/: not a regular file");
        assert!(tls(None).is_ok(), "without a file, the compiled-in roots");
    }
}
