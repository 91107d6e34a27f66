//! nginx with a certificate of an authority of our own.

use crate::forge::{Device, Forge, folder_config, in_days};
use ckaad_testing::program;
use ckaad_update::remote::{Remote, RemoteConfig};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

struct Nginx {
    process: Child,
    port: u16,
    authority: PathBuf,
    stranger: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves `root`; below `/plain/` it sends to `plain`, a server without TLS.
fn start(folder: &Path, root: &Path, plain: &str) -> Nginx {
    drop(program("openssl"));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let script = format!(
        "for name in ca stranger; do openssl req -x509 {key} -keyout $name.key -out $name.pem -subj /CN=$name; done
         openssl req {key} -keyout server.key -out server.csr -subj /CN=localhost
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > san
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem"
    );
    let made = program("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = folder.display();
    let config = format!(
        "user root; daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
         events {{ worker_connections 64; }}
         http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
         uwsgi_temp_path {dir}; scgi_temp_path {dir};
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key;
         root {root}; location /plain/ {{ rewrite ^/plain/(.*)$ {plain}$1 redirect; }} }} }}",
        root = root.display()
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut nginx = program("nginx");
    nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    let process = nginx.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Nginx { process, port, authority: folder.join("ca.pem"), stranger: folder.join("stranger.pem") }
}

fn device(forge: &Forge, nginx: &Nginx, path: &str, authority: &Path) -> Device {
    let url = format!("https://127.0.0.1:{}/{path}", nginx.port).parse().unwrap();
    let config = RemoteConfig { url, ca_file: Some(authority.into()), ..folder_config("/".as_ref()) };
    Device { remote: Remote::new(&config).unwrap(), second: None, ..forge.device() }
}

#[tokio::test]
async fn certificates_are_checked_by_the_authority_given_and_https_is_not_left() {
    let mut forge = Forge::new();
    forge.write().await;
    let plain = crate::server::Server::start(forge.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let nginx = start(folder.path(), forge.path(), plain.url().as_str());
    device(&forge, &nginx, "", &nginx.authority).look().await.unwrap();
    let said = device(&forge, &nginx, "", &nginx.stranger).refusal().await;
    assert!(said.contains("cannot be fetched") && said.contains("ertificate"), "{said}");
    let said = device(&forge, &nginx, "plain/", &nginx.authority).refusal().await;
    assert!(
        said.contains("it is redirected from https to http://127.0.0.1") && said.contains("not followed"),
        "{said}"
    );
    assert!(plain.requests().is_empty());
    // Files that hold no authority.
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let config = RemoteConfig {
        ca_file: Some(empty),
        url: "https://localhost/".parse().unwrap(),
        ..folder_config("/".as_ref())
    };
    assert!(Remote::new(&config).unwrap_err().to_string().contains("holds no certificate that can be used"));
}

#[tokio::test]
async fn certificates_are_checked_at_the_time_that_was_signed_where_that_is_later() {
    let mut forge = Forge::new();
    forge.timestamp._extra.insert(ckaad_update::offer::ISSUED.into(), serde_json::json!(in_days(10).to_string()));
    forge.write().await;
    let folder = tempfile::tempdir().unwrap();
    let nginx = start(folder.path(), forge.path(), "http://127.0.0.1:1/");
    let mut first = device(&forge, &nginx, "", &nginx.authority);
    first.look().await.unwrap();
    // By what was signed it is ten days later than this machine believes, and the certificate is for two. A connection that is open already
    // is not checked again: the next start opens one.
    let mut later = Device { trust: first.trust.clone(), ..device(&forge, &nginx, "", &nginx.authority) };
    let said = later.refusal().await;
    assert!(said.contains("ertificate") && said.to_lowercase().contains("expired"), "{said}");
}
