//! What a worker with a microphone may open.

use fieldgate_model::job::Sandbox;

/// ALSA's devices, and what it is set up by.
const DEVICES: &str = "/dev/snd";
const SETTINGS: [&str; 3] = ["/usr/share/alsa", "/etc/alsa", "/etc/asound.conf"];

/// Lets the worker use ALSA when it has a microphone. Its files are numbered as cards come, so all are let in.
pub(super) fn allow(sandbox: &mut Sandbox, microphone: &str) {
    if !microphone.is_empty() {
        sandbox.devices.push(DEVICES.into());
        sandbox.read.extend(SETTINGS.map(Into::into));
    }
}
