//! The command line.

mod import;

use crate::boot::{Overrides, RunOptions, machine_memory_bytes};
use crate::clock::{timestamp, wall_clock};
use crate::logging::{self, LogFormat};
use crate::plan::Plan;
use crate::unbuilt;
use crate::update::{HandedOver, hand_over};
use crate::wiring::encoders::Encoders;
use crate::wiring::list_now;
use clap::{Args, Parser, Subcommand};
use fieldgate_model::Config;
use fieldgate_model::config::{Network, Path as ConfigPath, Problem, Span, validate_on};
use fieldgate_model::plan::Known;
use fieldgate_worker::Spawner;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

mod bundle;
mod qr;
mod welcome;

/// What `hand-over` ends with when the gateway refuses the bundle.
const REFUSED: u8 = 10;

/// What only `main` knows.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Whether standard error goes to systemd's journal (`JOURNAL_STREAM` is set).
    pub journald: bool,
    /// Whether a service manager has started us, and does so again when we end.
    pub supervised: bool,
    /// The inside of a worker process; none in a build without cameras.
    pub worker: Option<fn() -> ExitCode>,
}

#[derive(Parser, Debug)]
#[command(
    name = "fieldgate",
    version,
    about = "Camera gateway: takes local cameras and RTMP encoders in, serves players, pushes upstream",
    after_help = "Publish to and play from rtmp://HOST/live/NAME?key=KEY. Start with:\n  \
        fieldgate check config.json\n  fieldgate run --state ./state --config config.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the gateway until it is told to stop (SIGTERM, SIGINT)
    Run(Run),
    /// Say everything that is wrong with a config; exit code 1 if anything is
    Check(Inspect),
    /// Say what a config would run: sources, what is encoded and why, outputs, memory
    Plan(Measured),
    /// List local cameras: names that stay the same, formats, sizes, rates, controls
    Devices {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the code that claims a new gateway
    ClaimCode {
        /// Folder that keeps the gateway's state
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fieldgate")]
        state: PathBuf,
        /// Also as a QR code that opens the page with the code typed in
        #[arg(long)]
        qr: bool,
        /// Where the page is, instead of where it is announced, such as `https://192.168.1.5:8443/`
        #[arg(long, value_name = "URL", requires = "qr")]
        at: Option<String>,
    },
    /// Show where the local networks are told that the page is, such as `https://fieldgate-7f3a.local:8443/`
    Announced {
        /// Folder that keeps the gateway's state
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fieldgate")]
        state: PathBuf,
    },
    /// Say on a console where the page is and, until it is claimed, the code for it, also as a QR code
    Welcome {
        /// Folder that keeps the gateway's state
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fieldgate")]
        state: PathBuf,
    },
    /// Say whether a signed document, such as an acceptance certificate, is as it was signed
    Verify {
        /// The document
        file: PathBuf,
        /// The public key that must have signed it, 64 hexadecimal digits; else whatever key stands in it
        #[arg(long)]
        key: Option<String>,
    },
    /// Make keys, sign, check and show the bundles by which a fleet manager changes gateways
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Say which config an older system's environment variables (NAME=VALUE lines) and state file come to
    ImportEnv(Import),
    /// Say which version this is and what is built in
    Version,
    /// Root's side of network and time settings: answers one request on standard input; started by its socket unit
    SystemHelper {
        /// The user that may ask, beside root
        #[arg(long, value_name = "USER", default_value = "fieldgate")]
        user: String,
    },
    /// Hand a firmware bundle (.raucb) on a medium that was plugged in to the running gateway, and say how it goes. Ends with 0
    /// when it is installed or runs already, with 10 when the gateway refuses it, with 1 when no gateway answers. With a file
    /// `downgrade` beside it, it is installed also if it is not newer than what runs
    HandOver {
        /// The bundle
        bundle: PathBuf,
        /// Folder that keeps the gateway's state
        #[arg(long, value_name = "DIR", default_value = "/var/lib/fieldgate")]
        state: PathBuf,
        /// How long a gateway that is not there is waited for
        #[arg(long, value_name = "TIME", default_value = "30s")]
        within: Span,
    },
    /// The inside of a worker process; started by the gateway alone
    #[command(hide = true)]
    Worker,
}

#[derive(Args, Debug)]
struct Run {
    /// Folder that keeps the confirmed config; one gateway each
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fieldgate")]
    state: PathBuf,
    /// First config, taken if the state folder has none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the file of --config even if the state folder has a config
    #[arg(long, requires = "config")]
    replace: bool,
    /// Listen here for RTMP instead of where the config says; may be repeated
    #[arg(long, value_name = "ADDR:PORT", visible_alias = "listen")]
    rtmp_listen: Vec<SocketAddr>,
    /// Listen here for the admin API instead of where the config says (loopback); may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    admin_listen: Vec<SocketAddr>,
    /// Time in which a change of what is running must be confirmed before it is undone
    #[arg(long, value_name = "TIME", default_value = "90s")]
    confirm_within: Span,
    /// A file on the boot partition that tells a gateway without a config whom to obey: the fleet's keys and broker
    #[arg(long, value_name = "FILE", default_value = "/boot/fieldgate-provision.json")]
    provision_file: PathBuf,
    /// A file on the boot partition: if it is there at the start, users and tokens are removed, once
    #[arg(long, value_name = "FILE", default_value = "/boot/fieldgate-reset")]
    reset_file: PathBuf,
    /// The socket of the system helper, by which network and time are set
    #[arg(long, value_name = "FILE", default_value = "/run/fieldgate-helper.sock")]
    system_helper: PathBuf,
    /// Where the state is copied to, in memory, if its disk is read-only
    #[arg(long, value_name = "DIR", default_value = "/run/fieldgate")]
    memory: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,fieldgate_net=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// How log lines look [default: text, or journald when started by systemd]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Args, Debug)]
struct Inspect {
    /// The config, or - for standard input
    config: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Import {
    /// The variables, or - for standard input
    file: PathBuf,
    /// The old aggregator's conf.json: its cameras and their pushes
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// A config to lay them over
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A network from which registered cameras may publish; may be repeated
    #[arg(long, value_name = "NETWORK")]
    publish_allow: Vec<Network>,
}

#[derive(Args, Debug)]
struct Measured {
    #[command(flatten)]
    inspect: Inspect,
    /// Try the encoders of this machine, so that costs are told; takes some seconds
    #[arg(long)]
    measure: bool,
}

/// Reads the command line and does what it says.
pub fn main(surroundings: Surroundings) -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => return start(surroundings, run),
        Command::Worker => match surroundings.worker {
            Some(worker) => return worker(),
            None => return complain("this build has no cameras (feature gst)"),
        },
        Command::SystemHelper { user } => {
            return match crate::machine::main(&user) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&crate::steward::chain(&error)),
            };
        }
        Command::HandOver { bundle, state, within } => {
            return match hand_over(&state, &bundle, within.get(), &mut io::stdout()) {
                Ok(HandedOver::Done) => ExitCode::SUCCESS,
                Ok(HandedOver::Refused) => ExitCode::from(REFUSED),
                Err(error) => complain(&crate::steward::chain(&error)),
            };
        }
        Command::Check(inspect) => check(&inspect, &mut io::stdout()),
        Command::Plan(Measured { inspect, measure }) => plan(&inspect, measure, &mut io::stdout()),
        Command::Devices { json } => list_devices(surroundings.worker.is_some(), json, &mut io::stdout()),
        Command::ImportEnv(wish) => import::import(&wish, &mut io::stdout(), &mut io::stderr()),
        Command::Verify { file, key } => verify(&file, key.as_deref(), &mut io::stdout()),
        Command::ClaimCode { state, qr, at } => {
            claim_code(&state, qr.then_some(at.as_deref()), &mut io::stdout())
        }
        Command::Announced { state } => announced(&state, &mut io::stdout()),
        Command::Welcome { state } => welcome::welcome(&state, &mut io::stdout()),
        Command::Bundle(wish) => bundle::run(&wish, timestamp(&wall_clock(None)), &mut io::stdout()),
        Command::Version => {
            version(surroundings.worker.is_some(), &mut io::stdout()).map(|()| ExitCode::SUCCESS)
        }
    };
    match outcome {
        Ok(code) => code,
        // Whoever reads us may stop reading.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string()),
    }
}

fn start(surroundings: Surroundings, run: Run) -> ExitCode {
    let by_default = if surroundings.journald { LogFormat::Journald } else { LogFormat::Text };
    let log = match logging::start(&run.log, run.log_format.unwrap_or(by_default)) {
        Ok(log) => log,
        Err(error) => return complain(&error.to_string()),
    };
    let options = RunOptions {
        large: run.state.clone(),
        state: run.state,
        memory: run.memory,
        config: run.config,
        replace: run.replace,
        overrides: Overrides { rtmp_listen: run.rtmp_listen, admin_listen: run.admin_listen },
        confirm_within: run.confirm_within.get(),
        provision_file: run.provision_file,
        reset_file: run.reset_file,
        system_helper: run.system_helper,
        is_supervised: surroundings.supervised,
    };
    match crate::run::run(options, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&crate::steward::chain(&error)),
    }
}

fn complain(text: &str) -> ExitCode {
    // Nothing is left to tell it to if standard error is closed.
    writeln!(io::stderr(), "fieldgate: {text}").ok();
    ExitCode::FAILURE
}

fn read(file: &Path) -> io::Result<String> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map_err(named)?;
    } else {
        text = std::fs::read_to_string(file).map_err(named)?;
    }
    Ok(text)
}

fn load(file: &Path) -> io::Result<Result<Config, Vec<Problem>>> {
    let config = Config::parse(&read(file)?);
    Ok(config.and_then(|config| {
        let problems = validate_on(&config, machine_memory_bytes());
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }))
}

fn check(inspect: &Inspect, out: &mut dyn Write) -> io::Result<ExitCode> {
    match load(&inspect.config)? {
        Ok(config) => {
            let notices = unbuilt::all(&config);
            if inspect.json {
                writeln!(out, "{}", serde_json::json!({"problems": [], "notices": notices}))?;
            } else {
                for notice in &notices {
                    writeln!(out, "{}", in_file(notice))?;
                }
                writeln!(
                    out,
                    "{}: no problems, {} mountpoints",
                    inspect.config.display(),
                    config.mountpoints.len()
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => report(&problems, inspect.json, out),
    }
}

fn plan(inspect: &Inspect, measure: bool, out: &mut dyn Write) -> io::Result<ExitCode> {
    match load(&inspect.config)? {
        Ok(config) => {
            let encoding = fieldgate_model::plan::plan(&config, &known_here(measure)?);
            let plan = Plan::of(&config, machine_memory_bytes(), encoding);
            if inspect.json {
                serde_json::to_writer_pretty(&mut *out, &plan)?;
                writeln!(out)?;
            } else {
                write!(out, "{plan}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => report(&problems, inspect.json, out),
    }
}

/// What can be known of this machine without a gateway that runs.
fn known_here(measure: bool) -> io::Result<Known> {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let facts = if measure {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let encoders = Encoders::new(Spawner::start()?);
        runtime.block_on(encoders.measure(&CancellationToken::new()));
        encoders.facts()
    } else {
        Known::default()
    };
    Ok(Known { cores, ..facts })
}

fn report(problems: &[Problem], json: bool, out: &mut dyn Write) -> io::Result<ExitCode> {
    if json {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "problems": problems }))?;
        writeln!(out)?;
    } else {
        for problem in problems {
            writeln!(out, "{}", in_file(problem))?;
        }
    }
    Ok(ExitCode::FAILURE)
}

/// A problem of the whole says so; others begin with their path.
fn in_file(problem: &Problem) -> String {
    if problem.path == ConfigPath::root().to_string() {
        format!("config: {problem}")
    } else {
        problem.to_string()
    }
}

fn list_devices(can_ask: bool, json: bool, out: &mut dyn Write) -> io::Result<ExitCode> {
    let spawner = if can_ask { Some(Spawner::start()?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let devices = runtime.block_on(list_now(spawner.as_ref()))?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &devices)?;
        writeln!(out)?;
    } else if devices.is_empty() {
        writeln!(out, "no cameras: there is no /dev/videoN")?;
    } else {
        devices.iter().try_for_each(|device| writeln!(out, "{device}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(file: &Path, key: Option<&str>, out: &mut dyn Write) -> io::Result<ExitCode> {
    match crate::acceptance::verify(read(file)?.as_bytes(), key) {
        Ok((text, by)) => {
            writeln!(out, "signed by {by}")?;
            writeln!(out, "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(complain(&format!("{}: {error}", file.display()))),
    }
}

/// `qr` holds the page's address, if one is given.
fn claim_code(state: &Path, qr: Option<Option<&str>>, out: &mut dyn Write) -> io::Result<ExitCode> {
    match crate::access::read_claim_code(state) {
        Ok(Some(code)) => {
            writeln!(out, "{code}")?;
            let Some(at) = qr else { return Ok(ExitCode::SUCCESS) };
            let announced = crate::local_name::read_announced(state).unwrap_or_default();
            let Some(at) = at.or(announced.lines().next()) else {
                let text = "this gateway announces no address for a QR code: name the page's with --at URL";
                return Ok(complain(text));
            };
            draw_claim(&code, at, out)
        }
        Ok(None) => Ok(complain("this gateway is claimed already")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = state.display();
            Ok(complain(&format!(
                "no gateway has run in {folder} yet; start it, or name its folder with --state"
            )))
        }
        Err(error) => {
            Err(io::Error::new(error.kind(), format!("cannot read the code in {}: {error}", state.display())))
        }
    }
}

/// A QR code that opens the page at this address with the code typed in.
fn draw_claim(code: &str, at: &str, out: &mut dyn Write) -> io::Result<ExitCode> {
    match qr::page(at).and_then(|page| qr::drawn(&format!("{page}#claim={code}"))) {
        Ok(drawn) => {
            write!(out, "{drawn}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(complain(&error.to_string())),
    }
}

fn announced(state: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    match crate::local_name::read_announced(state) {
        Ok(lines) if lines.is_empty() => Ok(complain(
            "this gateway announces nothing: it does not run, admin.tls is off, or discovery.announce is false",
        )),
        Ok(lines) => {
            write!(out, "{lines}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let folder = state.display();
            Ok(complain(&format!("what the gateway of {folder} announces cannot be read: {error}")))
        }
    }
}

fn version(has_cameras: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "fieldgate {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "target    {}-{}", std::env::consts::ARCH, std::env::consts::OS)?;
    let cameras = if has_cameras { ", cameras and encoders (GStreamer)" } else { "" };
    writeln!(out, "built in  RTMP, RTMPS{cameras}")?;
    writeln!(out, "schema    {}", fieldgate_model::config::SCHEMA)
}

#[cfg(test)]
mod tests;
