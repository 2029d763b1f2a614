//! A guest: QEMU by emulation with what `scripts/guest` got ready, obeying commands over a serial port.

use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Emulation on a busy machine is slow; what takes longer than this hangs.
pub(crate) const PATIENCE: Duration = secs(300);

/// What `scripts/guest` printed.
#[derive(Debug)]
pub(crate) struct Parts {
    kernel: PathBuf,
    initrd: PathBuf,
    /// The kernel's version.
    pub(crate) release: String,
}

impl Parts {
    /// Gets them ready; `topic` as the script takes it. Says why where that fails.
    pub(crate) fn prepare(topic: &str) -> Result<Parts, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/guest");
        let output = std::process::Command::new(script).arg(topic).output();
        let output = output.map_err(|error| format!("{script}: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let part = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(str::to_owned).ok_or_else(|| format!("{script} names no {name}"))
        };
        Ok(Parts {
            kernel: part("kernel")?.into(),
            initrd: part("initrd")?.into(),
            release: part("release")?,
        })
    }
}

/// What a command in the guest gave.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its exit code.
    pub(crate) code: i32,
    /// Both of its outputs.
    pub(crate) text: String,
}

/// A running guest. Ends when dropped.
pub(crate) struct Machine {
    process: Process,
    port: BufReader<UnixStream>,
    number: Cell<u32>,
    /// When it was started.
    pub(crate) started: Instant,
    _scratch: Scratch,
}

impl Machine {
    /// Boots one and waits until it obeys.
    pub(crate) fn boot(parts: &Parts) -> Machine {
        let scratch = Scratch::new();
        let socket = scratch.join("port");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let port = format!("socket,id=port,path={}", socket.display());
        let kernel = parts.kernel.to_str().unwrap();
        let initrd = parts.initrd.to_str().unwrap();
        let args = [
            "-M",
            "q35",
            "-cpu",
            "max",
            "-accel",
            "tcg,thread=multi",
            "-smp",
            "2",
            "-m",
            "1024",
            "-display",
            "none",
            "-no-reboot",
            "-kernel",
            kernel,
            "-initrd",
            initrd,
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off",
            "-serial",
            "stdio",
            "-chardev",
            &port,
            "-serial",
            "chardev:port",
            "-netdev",
            "user,id=net,restrict=no",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ];
        let started = Instant::now();
        let mut process = Process::start("qemu-system-x86_64", &args);
        listener.set_nonblocking(true).unwrap();
        let stream = wait::until("QEMU to open the guest's port", secs(60), || {
            process.assert_running();
            listener.accept().ok().map(|(stream, _)| stream)
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut machine = Machine {
            process,
            port: BufReader::new(stream),
            number: Cell::new(0),
            started,
            _scratch: scratch,
        };
        while machine.line() != "READY" {}
        machine
    }

    /// Runs a command, one line for the shell.
    pub(crate) fn run(&mut self, command: &str) -> Answer {
        assert!(!command.contains('\n'), "one line only");
        let number = self.number.get() + 1;
        self.number.set(number);
        // The shell reads backslashes as escapes.
        writeln!(self.port.get_mut(), "{number} {}", command.replace('\\', "\\\\")).unwrap();
        let begin = loop {
            let line = self.line();
            if let Some(rest) = line.strip_prefix(&format!("BEGIN {number} ")) {
                break rest.to_owned();
            }
        };
        let (code, len) = begin.split_once(' ').expect("a code and a length");
        let mut output = vec![0; len.parse().unwrap()];
        self.port.read_exact(&mut output).unwrap();
        while self.line() != format!("END {number}") {}
        Answer { code: code.parse().unwrap(), text: String::from_utf8_lossy(&output).into_owned() }
    }

    /// Runs a command that must succeed; its output.
    pub(crate) fn must(&mut self, command: &str) -> String {
        let answer = self.run(command);
        assert_eq!(answer.code, 0, "{command}:\n{}", answer.text);
        answer.text
    }

    /// Asks `probe` until it gives a value.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut probe: impl FnMut(&mut Machine) -> Result<T, String>,
    ) -> T {
        let start = Instant::now();
        loop {
            match probe(self) {
                Ok(value) => return value,
                Err(seen) if start.elapsed() > within => {
                    let log = self.run("tail -n 60 /run/gateway.log").text;
                    panic!("waited {within:?} in vain for {what}; seen last: {seen}\n--- gateway\n{log}");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn line(&mut self) -> String {
        self.process.assert_running();
        let mut line = Vec::new();
        if let Err(error) = self.port.read_until(b'\n', &mut line) {
            panic!("the guest says nothing: {error}; its console:\n{}", self.process.log());
        }
        assert!(!line.is_empty(), "the guest has gone; its console:\n{}", self.process.log());
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
