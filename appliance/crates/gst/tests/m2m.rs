//! V4L2 memory-to-memory elements inside a worker's sandbox: found and used through their device files.
//!
//! Runs where the kernel has `vicodec` (the guest of `scripts/slow vivid`); its codec is FWHT, no other encoder or
//! decoder behind V4L2 can be had without a board. Nothing is decoded: vicodec's decoder of Linux 6.12 writes beyond its
//! buffer and takes the kernel down. Has a main of its own, as the sandbox needs a process with one
//! thread. With the argument `without` no device file is allowed, and none may be found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails there")]

use fieldgate_model::job::Sandbox;
use gst::prelude::*;
use std::path::PathBuf;

const PICTURES: u32 = 30;

fn main() {
    let devices = codecs();
    if devices.is_empty() {
        println!("skipped: no vicodec here; scripts/slow vivid runs this in a guest that has it");
        return;
    }
    let is_allowed = !std::env::args().any(|argument| argument == "without");
    let allowed = if is_allowed { devices.clone() } else { Vec::new() };
    let guards =
        fieldgate_worker::sandbox::apply(&Sandbox { devices: allowed, ..Sandbox::default() }).unwrap();
    for guard in &guards {
        assert!(guard.on, "{}: {}", guard.name, guard.note);
    }
    println!("sandbox: {} guards in force", guards.len());
    assert_eq!(std::fs::File::open(&devices[0]).is_ok(), is_allowed, "{}", devices[0].display());
    gst::init().unwrap();
    ["coreelements", "videotestsrc", "video4linux2"].iter().for_each(|plugin| load(plugin));
    let found = |name| gst::ElementFactory::find(name).is_some();
    assert_eq!((found("v4l2fwhtenc"), found("v4l2fwhtdec")), (is_allowed, is_allowed));
    if !is_allowed {
        return println!("without its device files no codec is found");
    }
    let (encoded, bytes) = count("v4l2fwhtenc");
    println!("v4l2fwhtenc: {encoded} of {PICTURES} pictures of 1280x720, {bytes} bytes");
    assert!(encoded == PICTURES && bytes < u64::from(PICTURES) * 1280 * 720);
}

/// The device files of vicodec.
fn codecs() -> Vec<PathBuf> {
    let nodes = std::fs::read_dir("/sys/class/video4linux").into_iter().flatten().flatten();
    let is_codec = |name: &String| name.contains("stateful");
    let codecs = nodes
        .filter(|node| std::fs::read_to_string(node.path().join("name")).is_ok_and(|name| is_codec(&name)));
    let mut files: Vec<PathBuf> = codecs.map(|node| PathBuf::from("/dev").join(node.file_name())).collect();
    files.sort();
    files
}

/// As workers load plugins: by file, without a registry.
fn load(plugin: &str) {
    let file = format!("/usr/lib/x86_64-linux-gnu/gstreamer-1.0/libgst{plugin}.so");
    gst::Plugin::load_file(file).unwrap();
}

/// Buffers and bytes that come out of these elements.
fn count(elements: &str) -> (u32, u64) {
    let text = format!(
        "videotestsrc num-buffers={PICTURES} pattern=ball ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 \
         ! {elements} ! fakesink name=out"
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new((0_u32, 0_u64)));
    let counted = seen.clone();
    out.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let mut counted = counted.lock().unwrap();
            *counted = (counted.0 + 1, counted.1 + buffer.size() as u64);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(120), &end);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(error)) => panic!("{elements}: {} {:?}", error.error(), error.debug()),
        _ => panic!("{elements}: no end within two minutes"),
    }
    pipeline.set_state(gst::State::Null).unwrap();
    *seen.lock().unwrap()
}
