//! Debian's nginx with its RTMP module.

use super::address::own_address;
use super::process::Process;
use super::scratch::Scratch;
use super::take::Take;
use super::wait::{self, secs};
use super::{flv, http};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

/// A running server with the application `live`.
pub(crate) struct Nginx {
    /// Ends with it.
    _process: Process,
    /// Where it listens for RTMP.
    pub(crate) rtmp: SocketAddr,
    /// Where it tells its statistics.
    stat: SocketAddr,
    scratch: Scratch,
}

impl Nginx {
    /// A server that relays and records all that is published.
    pub(crate) fn start() -> Nginx {
        Nginx::at(own_address())
    }

    /// As [`Nginx::start`], for RTMP at this address.
    pub(crate) fn at(address: SocketAddr) -> Nginx {
        // nginx cannot tell a port that the kernel gave it.
        let (rtmp, stat) = (address, own_address());
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("record")).unwrap();
        std::fs::write(scratch.join("nginx.conf"), config(scratch.path().to_str().unwrap(), rtmp, stat))
            .unwrap();
        let (prefix, log) = (scratch.path().to_str().unwrap(), scratch.join("error.log"));
        let args = ["-e", log.to_str().unwrap(), "-p", prefix, "-c", "nginx.conf"];
        let mut process = Process::start("nginx", &args);
        wait::until_true("nginx to listen", secs(30), || {
            process.assert_running();
            TcpStream::connect(rtmp).is_ok() && TcpStream::connect(stat).is_ok()
        });
        Nginx { _process: process, rtmp, stat, scratch }
    }

    /// Address of a stream.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("rtmp://{}/live/{name}", self.rtmp)
    }

    /// What it says of its streams.
    pub(crate) fn stat(&self) -> String {
        http::get(self.stat, "/stat").text()
    }

    /// The part of the statistics that is about one stream.
    fn stream_stat(&self, name: &str) -> Option<String> {
        let stat = self.stat();
        let marker = format!("<name>{name}</name>");
        let piece = stat.split("<stream>").find(|piece| piece.contains(&marker))?;
        Some(piece.to_owned())
    }

    /// Whether somebody publishes `name` to it now.
    pub(crate) fn is_publishing(&self, name: &str) -> bool {
        self.stream_stat(name).is_some_and(|stat| stat.contains("<publishing/>"))
    }

    /// Waits until somebody publishes `name` to it.
    pub(crate) fn wait_for_publisher(&self, name: &str) {
        wait::until_true("a publisher at nginx", secs(30), || self.is_publishing(name));
    }

    /// Waits until `count` connections hold `name` (players, and its publisher).
    pub(crate) fn wait_for_clients(&self, name: &str, count: usize) {
        wait::until_true("players at nginx", secs(15), || {
            self.stream_stat(name).is_some_and(|stat| stat.matches("<client>").count() >= count)
        });
    }

    /// Files that it has recorded of `name`, in the order of their making.
    pub(crate) fn recordings(&self, name: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.scratch.join("record"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}-")))
            .collect();
        files.sort();
        files
    }

    /// What arrived of `name` in its one publication.
    pub(crate) fn recorded(&self, name: &str) -> Take {
        wait::until_true("the end of the publication at nginx", secs(30), || {
            !self.recordings(name).is_empty() && !self.is_publishing(name)
        });
        let files = self.recordings(name);
        assert_eq!(files.len(), 1, "{name} was published {} times", files.len());
        Take::of(&flv::read(&files[0]))
    }
}

fn config(folder: &str, rtmp: SocketAddr, stat: SocketAddr) -> String {
    // One process, without a master: it is then gone at once with its id.
    format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
rtmp {{
    server {{
        listen {rtmp};
        chunk_size 4096;
        ping 30s;
        application live {{
            live on;
            publish_notify on;
            record all;
            record_path {folder}/record;
            record_suffix -%s.flv;
            record_unique on;
        }}
    }}
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {stat};
        location /stat {{ rtmp_stat all; }}
    }}
}}
"
    )
}
