//! Locks the calling process in: no new privileges, no capabilities, resource limits, Landlock, seccomp.
//!
//! Must run while the process has one thread: Landlock and seccomp hold per thread and are inherited by later ones.
//! What the kernel cannot do is reported, not fatal: a gateway on an old kernel still has to work.

mod syscalls;

use fieldgate_model::job::{Guard, Sandbox};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::path::Path;

/// Private memory that a worker may allocate when its job names none, bytes. x264 fails at 64 MB and works at 128;
/// every thread's stack counts 8 MB.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
const OPEN_FILES: u64 = 256;

/// What every worker reads: shared libraries and what the loader and allocator ask for.
const SYSTEM_READ: [&str; 6] =
    ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system/cpu"];
/// What hardware encoders and capture devices are described by. libudev looks for a subsystem by listing all classes and
/// buses: without these folders GStreamer finds no codec behind V4L2.
const DEVICE_READ: [&str; 5] =
    ["/sys/class", "/sys/bus", "/sys/devices", "/sys/dev/char", "/usr/share/libdrm"];

/// The process has more than one thread already, so it cannot be locked in as a whole.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox needs a process with one thread, this one has {0}")]
pub struct TooManyThreads(pub usize);

/// Applies all of it and says part by part what holds.
pub fn apply(sandbox: &Sandbox) -> Result<Vec<Guard>, TooManyThreads> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(TooManyThreads(threads));
    }
    Ok(vec![
        guard("no new privileges", rustix::thread::set_no_new_privs(true)),
        guard("capabilities", drop_capabilities()),
        guard("resource limits", limit_resources(sandbox)),
        confine_files_and_ports(sandbox),
        guard("system calls", syscalls::confine(sandbox)),
    ])
}

fn guard<E: std::fmt::Display>(name: &str, result: Result<(), E>) -> Guard {
    let note = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    Guard { name: name.to_owned(), on: result.is_ok(), note }
}

fn drop_capabilities() -> rustix::io::Result<()> {
    // Needs CAP_SETPCAP; an unprivileged service has neither it nor anything in the bounding set to give away.
    for capability in CapabilitySet::all().iter() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let nothing = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, nothing).or_else(|error| {
        // A service's own filter forbids the call, and leaves nothing to give up.
        let is_done = |held: CapabilitySets| (held.effective | held.permitted | held.inheritable).is_empty();
        if rustix::thread::capabilities(None).is_ok_and(is_done) { Ok(()) } else { Err(error) }
    })
}

fn limit_resources(sandbox: &Sandbox) -> rustix::io::Result<()> {
    let memory = if sandbox.memory_bytes == 0 { DEFAULT_MEMORY_BYTES } else { sandbox.memory_bytes };
    let set = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    set(Resource::Core, 0)?;
    set(Resource::Fsize, 0)?;
    set(Resource::Nofile, OPEN_FILES)?;
    set(Resource::Data, memory)?;
    // Graphics drivers map far more than they use.
    if sandbox.devices.is_empty() {
        set(Resource::As, ADDRESS_SPACE_BYTES)?;
    }
    Ok(())
}

fn confine_files_and_ports(sandbox: &Sandbox) -> Guard {
    let name = "files and ports".to_owned();
    match landlock(sandbox) {
        Ok(RulesetStatus::FullyEnforced) => Guard { name, on: true, note: String::new() },
        Ok(RulesetStatus::PartiallyEnforced) => {
            let note =
                "this kernel's Landlock is partial: TCP ports need 6.7, signals and abstract sockets 6.12";
            Guard { name, on: false, note: note.into() }
        }
        Ok(RulesetStatus::NotEnforced) => {
            Guard { name, on: false, note: "this kernel has no Landlock".into() }
        }
        Err(error) => Guard { name, on: false, note: error.to_string() },
    }
}

fn landlock(sandbox: &Sandbox) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let system = SYSTEM_READ.iter().map(Path::new);
    let described = DEVICE_READ.iter().map(Path::new).filter(|_| !sandbox.devices.is_empty());
    let named = sandbox.read.iter().map(AsRef::as_ref);
    let ports = sandbox.tcp_connect.iter().map(|port| Ok(NetPort::new(*port, AccessNet::ConnectTcp)));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::AbstractUnixSocket)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(system.chain(described).chain(named), read))?
        .add_rules(path_beneath_rules(&sandbox.devices, device))?
        .add_rules(ports.map(|rule: Result<NetPort, RulesetError>| rule))?
        .restrict_self()?;
    Ok(status.ruleset)
}
