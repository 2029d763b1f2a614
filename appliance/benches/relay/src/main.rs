//! Loads RTMP servers and a raw TCP fan-out floor with the same media, proves every frame that comes out,
//! and prints what relaying costs as ratios to the floor.

mod amf;
mod chunk;
mod connection;
mod engine;
mod error;
mod floor;
mod floor_tokio;
mod kmp;
mod loads;
mod media;
mod meter;
mod peers;
mod report;
mod session;
mod verify;
mod watching;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Attempt, BenchError};
use crate::loads::{LOADS, Load, Plan};
use crate::peers::{Peer, Programs};
use crate::report::Results;

#[derive(Parser)]
#[command(about = "What relaying RTMP costs, as ratios to a raw TCP fan-out floor")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The loads of relaying: a, b, h, push, slow, join, idle, gather (or gather-a, -b, -h).
    Relay {
        /// Which loads.
        #[arg(long, value_delimiter = ',', default_value = "a,b,h,push,slow,join,idle,gather")]
        loads: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// KMP pushes beside the RTMP push, in memory, spooled, and spooled with receivers that never acknowledge.
    Kmp {
        /// Which loads.
        #[arg(long, value_delimiter = ',', default_value = "push,kmp,spool,unacked")]
        loads: Vec<String>,
        #[command(flatten)]
        uplink: UplinkOptions,
        #[command(flatten)]
        options: Options,
    },
    /// 100 subscribers against 1: CPU per GB as a ratio.
    Fanout {
        #[command(flatten)]
        options: Options,
    },
    /// Viewers of one stream by HLS beside nginx with the same files: CPU per GB as a ratio, and memory.
    Hls {
        /// Viewers.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=4000))]
        viewers: u16,
        /// Kilobits per second of the stream's pictures.
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=50_000))]
        kilobits: u32,
        #[command(flatten)]
        options: Options,
    },
    /// The floor itself: told its port on standard output, ends with standard input.
    #[command(hide = true)]
    Floor {
        /// Bytes that it reads at once.
        #[arg(long)]
        floor_read: u32,
        /// On tokio.
        #[arg(long)]
        tokio: bool,
    },
}

#[derive(Args)]
struct UplinkOptions {
    /// Frames per acknowledgement where receivers acknowledge.
    #[arg(long, default_value_t = ACK_EVERY, value_parser = clap::value_parser!(u32).range(1..))]
    ack_every: u32,
    /// fieldgate's `push[].spool` where it spools, JSON.
    #[arg(long, default_value = "{}", value_parser = parse_json)]
    spool: serde_json::Value,
}

impl Default for UplinkOptions {
    fn default() -> Self {
        Self { ack_every: ACK_EVERY, spool: serde_json::json!({}) }
    }
}

const ACK_EVERY: u32 = 8;

#[derive(Args)]
struct Options {
    /// Which servers, in this order in each round [default: floor,fieldgate,nginx; of kmp: fieldgate].
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds of each run before they are measured.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// Rounds; each runs every load on every server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
    /// Chunk size of the publishers (OBS and GStreamer: 4096).
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=0x00FF_FFFF))]
    publisher_chunk: u32,
    /// fieldgate's binary.
    #[arg(long, default_value = "target/release/fieldgate")]
    fieldgate: PathBuf,
    /// fieldgate's binary for the memory load, built without GStreamer [default: the same].
    #[arg(long)]
    fieldgate_slim: Option<PathBuf>,
    /// JSON merged over fieldgate's generated config.
    #[arg(long, value_parser = parse_json)]
    fieldgate_config: Option<serde_json::Value>,
    /// nginx's binary.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// nginx's chunk size towards players; 4096 is its own default.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(128..=0x00FF_FFFF))]
    nginx_chunk: u32,
    /// Bytes that the floor reads at once: less makes it dearer where frames are larger (load h). With the default nginx
    /// stands nearest to where it stood when the goals were set.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1024..=1 << 20))]
    floor_read: u32,
    /// Streams without sound: fewer, larger messages.
    #[arg(long)]
    no_audio: bool,
    /// Ends with an error when a goal that must hold is missed.
    #[arg(long)]
    check: bool,
    /// Also writes everything as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn parse_json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Floor { floor_read, tokio: false } => floor::serve(floor_read as usize),
        Command::Floor { floor_read, tokio: true } => floor_tokio::serve(floor_read as usize),
        Command::Relay { loads, options } => {
            select(&loads).and_then(|loads| bench(&loads, &options, &UplinkOptions::default()))
        }
        Command::Kmp { loads, uplink, mut options } => {
            if options.peers.is_empty() {
                options.peers = vec![Peer::Fieldgate];
            }
            select(&loads).and_then(|loads| bench(&loads, &options, &uplink))
        }
        Command::Hls { viewers, kilobits, options } => watch(viewers, kilobits, &options),
        Command::Fanout { options } => {
            let loads: Vec<Load> = LOADS.into_iter().filter(|load| load.name.starts_with('x')).collect();
            bench(&loads, &options, &UplinkOptions::default())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("bench: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn select(names: &[String]) -> Result<Vec<Load>, BenchError> {
    let chosen = |load: &Load, name: &str| load.name == name || (name == "gather" && load.gather);
    if let Some(unknown) = names.iter().find(|name| !LOADS.iter().any(|load| chosen(load, name))) {
        return Err(BenchError::UnknownLoad(unknown.clone()));
    }
    Ok(LOADS.into_iter().filter(|load| names.iter().any(|name| chosen(load, name))).collect())
}

/// Raises the limit of open files, and catches the signals that end a run.
fn prepare() -> Result<Arc<AtomicBool>, BenchError> {
    let files = getrlimit(Resource::Nofile);
    // 500 idle connections need more than the usual 1024 here and in the servers, which inherit this.
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })
        .attempt("raise the limit of open files")?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).attempt("catch a signal")?;
    }
    Ok(interrupted)
}

fn programs(options: &Options) -> Programs {
    Programs {
        fieldgate: options.fieldgate.clone(),
        nginx: options.nginx.clone(),
        nginx_chunk: options.nginx_chunk,
        floor_read: options.floor_read,
        fieldgate_config: options.fieldgate_config.clone(),
    }
}

fn watch(viewers: u16, kilobits: u32, options: &Options) -> Result<(), BenchError> {
    let mut programs = programs(options);
    if let Some(slim) = &options.fieldgate_slim {
        programs.fieldgate.clone_from(slim);
    }
    let plan = watching::Plan {
        viewers: usize::from(viewers),
        bitrate: u64::from(kilobits) * 1000,
        seconds: options.seconds,
        warm_up: options.warm_up,
        programs,
        interrupted: prepare()?,
    };
    let mut missed = 0;
    for _ in 0..options.rounds {
        let (gateway, nginx) = watching::run(&plan)?;
        let (text, holds) = watching::table(&plan, &gateway, &nginx);
        say(&mut std::io::stdout(), &text);
        missed += usize::from(!holds);
    }
    if options.check && missed > 0 { Err(BenchError::GoalsMissed(missed)) } else { Ok(()) }
}

fn bench(loads: &[Load], options: &Options, uplink: &UplinkOptions) -> Result<(), BenchError> {
    let interrupted = prepare()?;
    let programs = programs(options);
    let plan = Plan {
        seconds: options.seconds,
        warm_up: options.warm_up,
        chunk_size: options.publisher_chunk as usize,
        audio: !options.no_audio,
        ack_every: uplink.ack_every,
        spool: uplink.spool.clone(),
        programs,
        interrupted,
    };
    let peers = if options.peers.is_empty() { &Peer::USUAL[..] } else { &options.peers };
    let mut results = Results::default();
    let mut failed = 0;
    for round in 0..options.rounds as usize {
        for load in loads {
            for &peer in peers {
                if !load.suits(peer) || (peer.is_floor() && has_floor(&results, round, load)) {
                    continue;
                }
                let what = format!("round {} {:<9} {:<10}", round + 1, load.name, peer.name());
                match loads::run(load, peer, &slim(&plan, load, options)) {
                    Ok(outcome) => {
                        let line = format!("{what} CPU {:.3} s/GB\n", outcome.cpu_per_gb);
                        say(&mut std::io::stderr(), &line);
                        results.add(round, *load, peer, outcome);
                    }
                    Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                    // One server's failure leaves the others' figures standing.
                    Err(error) => {
                        failed += 1;
                        say(&mut std::io::stderr(), &format!("{what} failed: {error}\n"));
                    }
                }
            }
        }
    }
    let goals = results.goals();
    say(&mut std::io::stdout(), &results.tables());
    if !goals.is_empty() {
        say(&mut std::io::stdout(), &format!("\n{}", results.goal_table()));
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", results.json())).attempt("write the JSON file")?;
    }
    let missed = goals.iter().filter(|goal| !goal.holds()).count();
    if failed > 0 {
        return Err(BenchError::RunsFailed(failed));
    }
    if options.check && missed > 0 {
        return Err(BenchError::GoalsMissed(missed));
    }
    Ok(())
}

/// Whether a gathering load can be set beside the floor of its plain twin.
fn has_floor(results: &Results, round: usize, load: &Load) -> bool {
    load.name.strip_prefix("gather-").is_some_and(|base| results.get(round, base, Peer::Floor).is_some())
}

/// The plan with the slim build, for the load that measures memory.
fn slim(plan: &Plan, load: &Load, options: &Options) -> Plan {
    let mut plan = plan.clone();
    if let Some(slim) = options.fieldgate_slim.as_ref().filter(|_| load.kind == loads::Kind::Idle) {
        plan.programs.fieldgate.clone_from(slim);
    }
    plan
}

/// Writes for people; a reader that went away is no reason to fail.
fn say(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}
