//! A camera with JPEG pictures by HTTP, good or with a fault.

use crate::common::fixture::cached;
use crate::common::process::Process;
use crate::common::wait::secs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How it answers one request; an error is the end of the connection.
pub(crate) type Answer = dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// One request.
pub(crate) struct Asked {
    /// How many came before it.
    pub(crate) nth: u32,
    /// Its head in lower case.
    pub(crate) head: String,
}

/// Ends with its owner.
pub(crate) struct JpegCamera {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
}

impl JpegCamera {
    pub(crate) fn start(
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> JpegCamera {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (answer, seen, ended): (Arc<Answer>, _, _) = (Arc::new(answer), requests.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, seen) = (answer.clone(), seen.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        JpegCamera { address, requests, over }
    }

    pub(crate) fn url(&self, login: &str) -> String {
        format!("http://{login}{}/video.mjpg", self.address)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for JpegCamera {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, seen: &AtomicU32, answer: &Answer) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let nth = seen.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { nth, head: head.to_lowercase() };
        if answer(&asked, &mut stream).is_err() {
            return;
        }
    }
}

/// A second of pictures of this size, each another.
pub(crate) fn pictures(size: &str) -> Arc<Vec<Vec<u8>>> {
    let path = cached(&format!("farm-{size}.mjpeg"), |path| {
        let picture = format!("testsrc2=size={size}:rate=25");
        let input = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-t", "1"];
        let coder =
            ["-c:v", "mjpeg", "-q:v", "6", "-pix_fmt", "yuvj420p", "-f", "mjpeg", path.to_str().unwrap()];
        Process::run("ffmpeg", &[&input[..], &coder].concat(), secs(60));
    });
    let stream = std::fs::read(path).unwrap();
    let starts: Vec<usize> =
        (0..stream.len() - 2).filter(|at| stream[*at..].starts_with(&[0xff, 0xd8, 0xff])).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let pictures: Vec<Vec<u8>> =
        starts.iter().zip(ends).map(|(start, end)| stream[*start..end].to_vec()).collect();
    assert_eq!(pictures.len(), 25, "{size}");
    Arc::new(pictures)
}

/// Sends these pictures for ever, 25 a second, each between `before` and `after`; `{}` in `before` is its length.
pub(crate) fn stream(
    to: &mut TcpStream,
    pictures: &[Vec<u8>],
    (before, after): (&str, &str),
) -> std::io::Result<()> {
    for picture in pictures.iter().cycle() {
        part(to, picture, (before, after))?;
    }
    Ok(())
}

/// One of them.
pub(crate) fn part(to: &mut TcpStream, picture: &[u8], (before, after): (&str, &str)) -> std::io::Result<()> {
    let before = before.replace("{}", &picture.len().to_string());
    to.write_all(&[before.as_bytes(), picture, after.as_bytes()].concat())?;
    std::thread::sleep(Duration::from_millis(40));
    Ok(())
}

/// What most cameras write around a picture.
pub(crate) const USUAL: (&str, &str) =
    ("--b\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", "\r\n");

/// The head before them.
pub(crate) fn head(to: &mut TcpStream) -> std::io::Result<()> {
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
}

/// Demands a login.
pub(crate) fn demand(to: &mut TcpStream, challenge: &str) -> std::io::Result<()> {
    let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: ";
    to.write_all(format!("{head}{challenge}\r\nContent-Length: 2\r\n\r\nno").as_bytes())
}
