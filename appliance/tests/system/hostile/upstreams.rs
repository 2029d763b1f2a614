//! Servers that break the protocol towards our pushes and pulls.

use super::{MEMORY_BOUND, message};
use crate::common::amf::{self, Amf};
use crate::common::chunks::{cut, head};
use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::memory::Peak;
use crate::common::nginx::Nginx;
use crate::common::wait::secs;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A server that shakes hands and then sends what `say` gives; lasts as long as the listener.
fn hostile_server(say: impl Fn(u32, &mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (count, socket) in listener.incoming().enumerate() {
            let Ok(mut socket) = socket else { return };
            socket.set_read_timeout(Some(secs(2))).unwrap();
            let mut hello = vec![0; 1 + 1_536];
            if socket.read_exact(&mut hello).is_err() {
                continue;
            }
            let answer = [&[3][..], &[0; 1_536], &hello[1..]].concat();
            if socket.write_all(&answer).is_ok() && socket.read_exact(&mut hello[1..]).is_ok() {
                say(count as u32, &mut socket);
                drop(socket.read(&mut [0; 4_096]));
            }
        }
    });
    address
}

#[test]
fn hostile_upstreams_harm_neither_the_gateway_nor_other_pushes() {
    let nested_answer = |socket: &mut TcpStream| {
        let mut body = amf::encode(&[Amf::text("_result"), Amf::Number(1.0)]);
        body.extend((0..50_000).flat_map(|_| [3, 0, 1, b'a']));
        drop(socket.write_all(&cut(3, &message(20, 0, body), 128)));
    };
    let servers = [
        hostile_server(move |_, socket| nested_answer(socket)),
        hostile_server(|_, socket| {
            drop(socket.write_all(&cut(3, &message(20, 0, amf::encode(&[Amf::text("_result")])), 128)))
        }),
        hostile_server(|_, socket| drop(socket.write_all(&cut(2, &message(1, 0, vec![0; 4]), 128)))),
        hostile_server(|count, socket| {
            let noise: Vec<u8> =
                (0..20_000_u32).map(|i| ((i ^ count).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            drop(socket.write_all(&noise));
        }),
        hostile_server(|_, socket| {
            drop(socket.write_all(&head(3, 0, 0xff_ffff, 20, 0)));
            while socket.write_all(&[0xc3; 4_096]).is_ok() {}
        }),
        hostile_server(|_, socket| drop(socket.shutdown(std::net::Shutdown::Both))),
        // Shakes hands and says nothing, or only pings.
        hostile_server(|_, socket| {
            while socket.write_all(&cut(2, &message(4, 0, vec![0, 6, 0, 0, 0, 1]), 128)).is_ok() {}
        }),
    ];
    let nginx = Nginx::start();
    let mut pushes: Vec<_> = servers
        .iter()
        .map(|address| json!({ "url": format!("rtmp://{address}/live/x"), "backoff_cap": "1s" }))
        .collect();
    pushes.push(json!({ "url": nginx.url("good") }));
    let mut mountpoints = json!({ "yard": { "source": { "kind": "publish" }, "push": pushes } });
    for (index, address) in servers.iter().enumerate() {
        let url = format!("rtmp://{address}/live/x");
        mountpoints[format!("pull{index}")] =
            json!({ "source": { "kind": "pull", "url": url, "backoff_cap": "1s" } });
    }
    let mut gateway = Gateway::with_mountpoints(mountpoints);
    let peak = Peak::watch(gateway.pid());
    let healthy = Healthy::start(gateway.rtmp, "yard");
    healthy.wait_for_more(400);
    gateway.assert_running();
    peak.assert_below(MEMORY_BOUND);
    let sent = healthy.assert_unharmed();
    drop(gateway);
    // The push may have found its server only after some pictures; from there on nothing is missing.
    sent.assert_joined_late(&nginx.recorded("good"), "the push beside them");
}
