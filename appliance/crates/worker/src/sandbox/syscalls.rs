//! The system calls that a worker may make. Everything else answers "operation not permitted".
//!
//! Also does what `PR_SET_MDWE` would: nothing is ever writable and executable. GStreamer's Orc must therefore run
//! with `ORC_CODE=backup`.

use fieldgate_model::job::Sandbox;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("no system call filter for this processor: {0}")]
    Arch(BackendError),
    #[error("system call filter: {0}")]
    Build(#[from] BackendError),
    #[error("system call filter refused: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Installs both filters for this thread and all that it starts.
pub(super) fn confine(sandbox: &Sandbox) -> Result<(), FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(FilterError::Arch)?;
    // GLib aborts when clone3 is forbidden, but falls back to clone when it does not exist. Of two filters that refuse
    // the one installed last names the error, so the main one has to allow it.
    let clone3: Rules = [(libc::SYS_clone3, vec![])].into();
    let not_there = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    install(SeccompFilter::new(clone3, SeccompAction::Allow, not_there, arch)?)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    install(SeccompFilter::new(rules(sandbox)?, refused, SeccompAction::Allow, arch)?)?;
    Ok(())
}

fn install(filter: SeccompFilter) -> Result<(), FilterError> {
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

fn rules(sandbox: &Sandbox) -> Result<Rules, BackendError> {
    let mut rules: Rules = PLAIN.iter().chain(PLAIN_ARCH).map(|number| (*number, vec![])).collect();
    let pid = u64::from(std::process::id());
    for signal in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(signal, vec![rule([when(0, SeccompCmpOp::Eq, pid)])?]);
    }
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    rules.insert(libc::SYS_clone, vec![rule([when(0, SeccompCmpOp::MaskedEq(thread), thread)])?]);
    rules.insert(libc::SYS_mmap, vec![without(2, libc::PROT_WRITE)?, without(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_mprotect, vec![without(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_prctl, any_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA])?);
    // Reading one's own limits only.
    let mut own = Vec::new();
    for target in [0, pid] {
        let nothing_new = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
        own.push(rule([when(0, SeccompCmpOp::Eq, target), nothing_new])?);
    }
    rules.insert(libc::SYS_prlimit64, own);
    rules.insert(libc::SYS_socketpair, any_of(0, &[libc::AF_UNIX])?);
    rules.insert(libc::SYS_ioctl, ioctls(sandbox)?);
    let sockets = sockets(sandbox)?;
    if !sockets.is_empty() {
        rules.insert(libc::SYS_socket, sockets);
        for number in [libc::SYS_bind, libc::SYS_connect] {
            rules.insert(number, vec![]);
        }
    }
    Ok(rules)
}

/// No Unix sockets: Landlock does not guard connecting to them, and services listen there.
fn sockets(sandbox: &Sandbox) -> Result<Vec<SeccompRule>, BackendError> {
    let stream = (!sandbox.tcp_connect.is_empty()).then_some(libc::SOCK_STREAM);
    let datagram = sandbox.udp.then_some(libc::SOCK_DGRAM);
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in stream.iter().chain(&datagram) {
            let kind = u64::from(kind.cast_unsigned());
            let family = u64::from(family.cast_unsigned());
            let is_kind = when(1, SeccompCmpOp::MaskedEq(0xf), kind);
            rules.push(rule([when(0, SeccompCmpOp::Eq, family), is_kind])?);
        }
    }
    Ok(rules)
}

/// The second byte of a request names the driver family: V4L2, media, DRM, DMA buffers; sound and its controls.
fn ioctls(sandbox: &Sandbox) -> Result<Vec<SeccompRule>, BackendError> {
    const FAMILIES: [u8; 4] = [b'V', b'|', b'd', b'b'];
    const SOUND: [u8; 2] = [b'A', b'U'];
    // Memory for pictures: dma-buf heaps and udmabuf.
    const MEMORY: [u8; 2] = [b'H', b'u'];
    let has = |folder: &str| sandbox.devices.iter().any(|device| device.starts_with(folder));
    let (has_sound, has_memory) = (has("/dev/snd"), has("/dev/dma_heap") || has("/dev/udmabuf"));
    let mut rules = Vec::new();
    for request in [libc::TCGETS, libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX] {
        rules.push(rule([when(1, SeccompCmpOp::Eq, request & 0xffff_ffff)])?);
    }
    let families = FAMILIES.iter().filter(|_| !sandbox.devices.is_empty());
    for family in
        families.chain(SOUND.iter().filter(|_| has_sound)).chain(MEMORY.iter().filter(|_| has_memory))
    {
        rules.push(rule([when(1, SeccompCmpOp::MaskedEq(0xff00), u64::from(*family) << 8)])?);
    }
    Ok(rules)
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

fn rule<const N: usize>(
    all: [Result<SeccompCondition, BackendError>; N],
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(all.into_iter().collect::<Result<_, _>>()?)
}

fn without(argument: u8, bit: i32) -> Result<SeccompRule, BackendError> {
    rule([when(argument, SeccompCmpOp::MaskedEq(u64::from(bit.cast_unsigned())), 0)])
}

fn any_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    let equal = |value: &i32| rule([when(argument, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))]);
    values.iter().map(equal).collect()
}

const PLAIN: &[i64] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    // files that are open, and opening (Landlock decides which)
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    // waiting
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // threads
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_yield,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // own signals
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // who am I
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
    // sockets that are open
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

#[cfg(target_arch = "x86_64")]
const PLAIN_ARCH: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_pipe,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];

#[cfg(not(target_arch = "x86_64"))]
const PLAIN_ARCH: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sandbox: &Sandbox) -> Vec<i64> {
        rules(sandbox).unwrap().into_keys().collect()
    }

    #[test]
    fn what_reaches_other_processes_or_the_system_is_never_listed() {
        let all = Sandbox {
            devices: vec!["/dev/video0".into()],
            tcp_connect: vec![554],
            udp: true,
            ..Sandbox::default()
        };
        let listed = named(&all);
        for (name, number) in [
            ("ptrace", libc::SYS_ptrace),
            ("process_vm_readv", libc::SYS_process_vm_readv),
            ("process_vm_writev", libc::SYS_process_vm_writev),
            ("pidfd_open", libc::SYS_pidfd_open),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("execve", libc::SYS_execve),
            ("execveat", libc::SYS_execveat),
            ("tkill", libc::SYS_tkill),
            ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
            ("memfd_create", libc::SYS_memfd_create),
            ("pkey_mprotect", libc::SYS_pkey_mprotect),
            ("shmat", libc::SYS_shmat),
            ("listen", libc::SYS_listen),
            ("accept4", libc::SYS_accept4),
            ("mount", libc::SYS_mount),
            ("unshare", libc::SYS_unshare),
            ("setns", libc::SYS_setns),
            ("bpf", libc::SYS_bpf),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("keyctl", libc::SYS_keyctl),
            ("setrlimit", libc::SYS_setrlimit),
            ("unlinkat", libc::SYS_unlinkat),
        ] {
            assert!(!listed.contains(&number), "{name}");
        }
    }

    #[test]
    fn a_worker_without_network_gets_no_socket_calls() {
        let listed = named(&Sandbox::default());
        for number in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind] {
            assert!(!listed.contains(&number));
        }
        assert_eq!(sockets(&Sandbox { tcp_connect: vec![554], ..Sandbox::default() }).unwrap().len(), 2);
        assert_eq!(sockets(&Sandbox { udp: true, ..Sandbox::default() }).unwrap().len(), 2);
    }
}
