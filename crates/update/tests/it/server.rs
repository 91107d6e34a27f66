//! A web server that does what servers, portals and bad lines do. Ranges and ETags as nginx has them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request for a path that ends as the key says.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks after so many bytes of the body.
    CutAt(usize),
    /// Nothing comes after so many bytes.
    StallAt(usize),
    /// A byte at a time, for ever.
    Drip,
    /// As it should be, after so long.
    Late(Duration),
    /// 200 with everything, whatever range is asked for.
    NoRanges,
    /// 206 with another part than was asked for.
    WrongRange,
    /// This status and a page of HTML.
    Status(u16),
    /// To itself.
    RedirectLoop,
    /// To another URL.
    Redirect(String),
    /// 200 and a page of HTML.
    Html,
    /// More than anybody asked for, without a length.
    Endless,
}

#[derive(Default)]
struct Shared {
    faults: HashMap<String, Fault>,
    requests: Vec<String>,
    /// Changes every ETag.
    edition: u32,
}

#[derive(Clone)]
pub struct Server {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    pub async fn start(folder: &Path) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let (shared, folder) = (server.shared.clone(), folder.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, folder) = (shared.clone(), folder.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &folder, &shared).await;
                });
            }
        });
        server
    }

    pub fn url(&self) -> url::Url {
        format!("http://127.0.0.1:{}/", self.port).parse().unwrap()
    }

    /// From now on; None is as it should be.
    pub fn set(&self, path_ends: &str, fault: Option<Fault>) {
        let mut shared = self.shared.lock().unwrap();
        match fault {
            Some(fault) => shared.faults.insert(path_ends.into(), fault),
            None => shared.faults.remove(path_ends),
        };
    }

    pub fn new_edition(&self) {
        self.shared.lock().unwrap().edition += 1;
    }

    /// `PATH` or `PATH from N`, in their order.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().unwrap().requests.clone()
    }
}

async fn serve(mut stream: TcpStream, folder: &Path, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let (mut from, mut if_range) = (None, None);
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => from = value.trim().trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().ok(),
            "if-range" => if_range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let (fault, etag) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(from.map_or(path.clone(), |from| format!("{path} from {from}")));
        let fault = shared.faults.iter().find(|(end, _)| path.ends_with(end.as_str())).map(|(_, fault)| fault.clone());
        (fault, format!("\"{}-{}\"", path.len(), shared.edition))
    };
    let page = b"<html>Please log in</html>";
    match fault.clone() {
        Some(Fault::Status(status)) => return answer(&mut write, &format!("{status} No"), &[], page).await,
        Some(Fault::Html) => return answer(&mut write, "200 OK", &[], page).await,
        Some(Fault::RedirectLoop) => return answer(&mut write, "302 Found", &[format!("Location: {path}")], b"").await,
        Some(Fault::Redirect(to)) => return answer(&mut write, "302 Found", &[format!("Location: {to}")], b"").await,
        Some(Fault::Endless) => {
            write.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                write.write_all(&[b' '; 4096]).await?;
            }
        }
        Some(Fault::Late(late)) => tokio::time::sleep(late).await,
        _ => {}
    }
    let file: PathBuf = folder.join(path.trim_start_matches('/'));
    let Ok(bytes) = std::fs::read(&file) else { return answer(&mut write, "404 Not Found", &[], page).await };
    let ranges = !matches!(fault, Some(Fault::NoRanges));
    let same = if_range.is_none_or(|wanted| wanted == etag);
    let from = from.filter(|_| ranges && same);
    let (status, start) = match from {
        Some(from) if from >= bytes.len() => {
            return answer(&mut write, "416 Range Not Satisfiable", &[], b"").await;
        }
        Some(from) if matches!(fault, Some(Fault::WrongRange)) => ("206 Partial Content", from / 2),
        Some(from) => ("206 Partial Content", from),
        None => ("200 OK", 0),
    };
    let body = &bytes[start..];
    let mut head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nETag: {etag}\r\nContent-Length: {}\r\n", body.len());
    if from.is_some() {
        head += &format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    }
    write.write_all(format!("{head}\r\n").as_bytes()).await?;
    match fault {
        Some(Fault::CutAt(n)) => write.write_all(&body[..n.min(body.len())]).await?,
        Some(Fault::StallAt(n)) => {
            write.write_all(&body[..n.min(body.len())]).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Some(Fault::Drip) => {
            for byte in body {
                write.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        _ => write.write_all(body).await?,
    }
    write.shutdown().await
}

async fn answer(
    write: &mut (impl AsyncWriteExt + Unpin),
    status: &str,
    headers: &[String],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    write.write_all(format!("{head}\r\n").as_bytes()).await?;
    write.write_all(body).await?;
    write.shutdown().await
}
