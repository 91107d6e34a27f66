//! Fetching from the repository: static files behind a web server, or a folder.
//!
//! Nothing that comes from here is trusted. What this file answers for: no more bytes than were asked for, no waiting for ever, no way from
//! https to http, and a download that goes on where it was broken off.

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use url::Url;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// In [`RemoteConfig::patience`] at least so many bytes must come, or what is left of the file: one byte now and then would keep us for ever.
const LEAST_PROGRESS: u64 = 1024;
/// A folder is read in pieces of so many bytes.
const PIECE: usize = 64 << 10;

/// Where the repository is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// `https:`, `http:` or `file:`; what `publish` wrote lies there as `metadata/` and `targets/`.
    pub url: Url,
    /// PEM with the authorities that may have signed the server's certificate; none is the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://host:port`; none is what the environment says.
    pub proxy: Option<Url>,
    /// For the connection, the headers, and each piece of a body.
    pub patience: Duration,
    /// Bytes a second of a bundle; none is as fast as it goes.
    pub rate: Option<u64>,
}

/// Why a file did not come. A message holds its cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum FetchError {
    #[error("the update repository cannot be used: {0}")]
    Config(String),
    #[error("{url} is not there")]
    NotThere { url: String },
    #[error("{url} cannot be fetched: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} was answered with {status}")]
    Status { url: String, status: String },
    #[error("{url} sent more than the {limit} bytes that were expected")]
    TooLong { url: String, limit: u64 },
    #[error("{url} sent nothing for {seconds} s")]
    Stalled { url: String, seconds: u64 },
    #[error("{url} is too slow: {got} bytes in {seconds} s")]
    Slow { url: String, got: u64, seconds: u64 },
    #[error("{url} was broken off after {got} of {expected} bytes")]
    Short { url: String, got: u64, expected: u64 },
    #[error("{url} answered a request for the rest with another part of the file ({answer})")]
    WrongPart { url: String, answer: String },
    #[error("what {url} sent cannot be kept: {reason}")]
    Keep { url: String, reason: String },
    #[error("{path} cannot be written: {reason}")]
    Disk { path: PathBuf, reason: String },
    #[error("{url} needs {needed} bytes on the disk of {path}, where {free} are free")]
    Space { url: String, path: PathBuf, needed: u64, free: u64 },
}

/// A repository that can be asked for files.
#[derive(Clone, Debug)]
pub struct Remote {
    base: Url,
    /// None where the repository is a folder.
    client: Option<Client>,
    patience: Duration,
    rate: Option<u64>,
    time: Arc<FlooredTime>,
}

/// What certificates are checked against: the system's time, and not before the floor. A device that wakes in 1970 would find every
/// certificate not valid yet.
#[derive(Debug, Default)]
struct FlooredTime {
    /// Seconds since 1970.
    floor: AtomicU64,
}

impl TimeProvider for FlooredTime {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = Duration::from_secs(self.floor.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().max(floor)))
    }
}

/// Pieces of a file, as they come.
enum Body {
    Http(Response),
    Folder(tokio::fs::File),
}

/// Receives a file while it comes.
pub trait Sink: Send {
    /// The next piece. An error ends the fetching.
    ///
    /// # Errors
    /// The piece cannot be kept.
    fn piece(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// What was kept is no beginning of the file: all is to be forgotten.
    ///
    /// # Errors
    /// It cannot be forgotten.
    fn restart(&mut self) -> std::io::Result<()>;
}

/// A part of a file that is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Bytes that are there.
    pub have: u64,
    /// What the server called the file then.
    pub etag: Option<String>,
}

impl Remote {
    /// # Errors
    /// The URL is none that can be asked, or the certificates cannot be used.
    pub fn new(config: &RemoteConfig) -> Result<Remote, FetchError> {
        let mut base = config.url.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let time = Arc::new(FlooredTime::default());
        let client = match base.scheme() {
            "file" => None,
            "http" | "https" => Some(client(config, time.clone())?),
            other => {
                return Err(FetchError::Config(format!(
                    "{base} begins with {other}:; expected https:, http: or file:"
                )));
            }
        };
        Ok(Remote { base, client, patience: config.patience, rate: config.rate, time })
    }

    /// Certificates are checked at this time, or at the system's if that is later.
    pub fn set_floor(&self, floor: Timestamp) {
        self.time.floor.store(u64::try_from(floor.as_second()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.base
    }

    fn join(&self, path: &str) -> Result<Url, FetchError> {
        self.base.join(path).map_err(|e| FetchError::Config(format!("{path} is no part of a URL: {e}")))
    }

    /// A whole small file, `path` below the base.
    ///
    /// # Errors
    /// It does not come, or is longer than `limit`.
    pub async fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        struct Memory(Vec<u8>);
        impl Sink for Memory {
            fn piece(&mut self, bytes: &[u8]) -> std::io::Result<()> {
                self.0.extend_from_slice(bytes);
                Ok(())
            }
            fn restart(&mut self) -> std::io::Result<()> {
                self.0.clear();
                Ok(())
            }
        }
        let url = self.join(path)?;
        let (mut body, _) = self.open(&url, &Resume::default()).await?;
        let mut memory = Memory(vec![]);
        self.receive(&url, &mut body, &mut memory, 0, limit).await?;
        Ok(memory.0)
    }

    /// The rest of a file of `length` bytes into `sink`. `named` hears what the server calls the file before the first piece is
    /// handed over.
    ///
    /// # Errors
    /// It does not come whole; what came stays with the sink.
    pub async fn large(
        &self,
        path: &str,
        length: u64,
        resume: &Resume,
        sink: &mut dyn Sink,
        mut named: impl FnMut(Option<&str>) -> std::io::Result<()>,
    ) -> Result<(), FetchError> {
        let url = self.join(path)?;
        let disk = |e: std::io::Error| FetchError::Keep { url: url.to_string(), reason: e.to_string() };
        let mut have = resume.have;
        let (mut body, start) = self.open(&url, resume).await?;
        if start != have {
            sink.restart().map_err(disk)?;
            have = 0;
        }
        if let Body::Http(response) = &body {
            named(etag(response.headers()).as_deref()).map_err(disk)?;
        }
        let got = self.receive(&url, &mut body, sink, have, length).await?;
        if got < length {
            return Err(FetchError::Short { url: url.to_string(), got, expected: length });
        }
        Ok(())
    }

    /// Opens a file at the place where `resume` ends, or at its beginning: says at which.
    async fn open(&self, url: &Url, resume: &Resume) -> Result<(Body, u64), FetchError> {
        let Some(client) = &self.client else { return self.open_file(url, resume.have).await };
        let mut have = resume.have;
        // A second time without the part, where the server says that it fits no more.
        for _ in 0..2 {
            let mut request = client.get(url.clone());
            if have > 0 {
                request = request.header(RANGE, format!("bytes={have}-"));
                if let Some(etag) = &resume.etag {
                    request = request.header(IF_RANGE, etag);
                }
            }
            let response = match timeout(self.patience, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(e)) => return Err(unreachable(url, &e)),
                Err(_) => return Err(self.stalled(url)),
            };
            match response.status() {
                StatusCode::OK => return Ok((Body::Http(response), 0)),
                StatusCode::PARTIAL_CONTENT if have > 0 => {
                    let answer = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("");
                    if !answer.starts_with(&format!("bytes {have}-")) {
                        return Err(FetchError::WrongPart { url: url.to_string(), answer: answer.into() });
                    }
                    return Ok((Body::Http(response), have));
                }
                StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => have = 0,
                StatusCode::NOT_FOUND | StatusCode::GONE => return Err(FetchError::NotThere { url: url.to_string() }),
                status => return Err(FetchError::Status { url: url.to_string(), status: status.to_string() }),
            }
        }
        Err(FetchError::Status { url: url.to_string(), status: StatusCode::RANGE_NOT_SATISFIABLE.to_string() })
    }

    async fn open_file(&self, url: &Url, have: u64) -> Result<(Body, u64), FetchError> {
        use tokio::io::AsyncSeekExt;
        let unreachable = |reason: String| FetchError::Unreachable { url: url.to_string(), reason };
        let path = url.to_file_path().map_err(|()| unreachable("it names no file of this machine".into()))?;
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(FetchError::NotThere { url: url.to_string() });
            }
            Err(e) => return Err(unreachable(e.to_string())),
        };
        file.seek(std::io::SeekFrom::Start(have)).await.map_err(|e| unreachable(e.to_string()))?;
        Ok((Body::Folder(file), have))
    }

    /// Receives up to `limit` bytes, of which `have` are there; says how many are there then.
    async fn receive(
        &self,
        url: &Url,
        body: &mut Body,
        sink: &mut dyn Sink,
        mut have: u64,
        limit: u64,
    ) -> Result<u64, FetchError> {
        if let Body::Http(response) = body
            && response.content_length().is_some_and(|rest| rest > limit - have.min(limit))
        {
            return Err(FetchError::TooLong { url: url.to_string(), limit });
        }
        let begun = tokio::time::Instant::now();
        let already = have;
        let (mut marked, mut mark) = (begun, have);
        loop {
            if marked.elapsed() >= self.patience {
                let (got, seconds) = (have - mark, marked.elapsed().as_secs());
                if got < LEAST_PROGRESS {
                    return Err(FetchError::Slow { url: url.to_string(), got, seconds });
                }
                (marked, mark) = (tokio::time::Instant::now(), have);
            }
            let piece = match timeout(self.patience, body.next()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return Ok(have),
                // What broke off is told by its length, where there is one; the sentence of the client says little.
                Ok(Err(reason)) => return Err(FetchError::Unreachable { url: url.to_string(), reason }),
                Err(_) => return Err(self.stalled(url)),
            };
            have += piece.len() as u64;
            if have > limit {
                return Err(FetchError::TooLong { url: url.to_string(), limit });
            }
            sink.piece(&piece).map_err(|e| FetchError::Keep { url: url.to_string(), reason: e.to_string() })?;
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64((have - already) as f64 / rate.max(1) as f64);
                tokio::time::sleep_until(begun + due).await;
            }
        }
    }

    fn stalled(&self, url: &Url) -> FetchError {
        FetchError::Stalled { url: url.to_string(), seconds: self.patience.as_secs() }
    }
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Body::Http(response) => response.chunk().await.map_err(|e| causes(&e)),
            Body::Folder(file) => {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).await.map_err(|e| e.to_string())?;
                piece.truncate(read);
                Ok((read > 0).then(|| Bytes::from(piece)))
            }
        }
    }
}

fn etag(headers: &HeaderMap) -> Option<String> {
    // A weak one promises no equal bytes.
    headers.get(ETAG)?.to_str().ok().filter(|etag| !etag.starts_with("W/")).map(str::to_owned)
}

fn client(config: &RemoteConfig, time: Arc<FlooredTime>) -> Result<Client, FetchError> {
    let bad = FetchError::Config;
    let mut builder = Client::builder()
        .user_agent(concat!("ckaad-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.patience)
        .redirect(Policy::custom(redirect))
        .referer(false)
        .tls_backend_preconfigured(tls(config, time)?);
    if let Some(proxy) = &config.proxy {
        let proxy =
            reqwest::Proxy::all(proxy.clone()).map_err(|e| bad(format!("the proxy {proxy}: {}", causes(&e))))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|e| bad(causes(&e)))
}

fn redirect(attempt: Attempt) -> reqwest::redirect::Action {
    let left_tls = attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
    if left_tls {
        let to = attempt.url().to_string();
        return attempt.error(format!("it is redirected from https to {to}, which is not followed"));
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("it is redirected more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}

fn tls(config: &RemoteConfig, time: Arc<FlooredTime>) -> Result<rustls::ClientConfig, FetchError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let bad = FetchError::Config;
    let mut roots = rustls::RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|e| bad(format!("{}: {e}", path.display())))?;
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<_, _>>()
                .map_err(|e| bad(format!("{} is no PEM with certificates: {e}", path.display())))?;
            roots.add_parsable_certificates(certificates);
            if roots.is_empty() {
                return Err(bad(format!("{} holds no certificate that can be used", path.display())));
            }
        }
        // None at all is found out when https is asked for.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn unreachable(url: &Url, e: &reqwest::Error) -> FetchError {
    FetchError::Unreachable { url: url.to_string(), reason: causes(e) }
}

/// The last cause, which says what happened; those above it name the URL once more.
fn causes(e: &dyn std::error::Error) -> String {
    let mut last = e;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Bytes that are free for this user on the disk of a folder; none where it cannot be told.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
