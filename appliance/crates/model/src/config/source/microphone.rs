//! Which microphone belongs to a camera.

/// Whether a microphone may be called so: ALSA's own names of capture devices, without its plugins, which could read
/// and write files.
pub fn is_microphone(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=,.-".contains(c);
    match name.split_once(':') {
        Some(("hw" | "plughw", device)) => (1..=64).contains(&device.len()) && device.chars().all(plain),
        Some(_) => false,
        // Silence, to try without one.
        None => name == "null",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microphone_is_named_as_alsa_names_it() {
        for name in ["hw:0", "hw:1,0", "plughw:CARD=C920,DEV=0", "hw:CARD=U0x46d0x825", "null"] {
            assert!(is_microphone(name), "{name}");
        }
        let long = format!("hw:{}", "x".repeat(65));
        let others = [
            "",
            "hw:",
            "default",
            "file:/etc/passwd",
            "hw:0;rm",
            "{type file}",
            "plug:null",
            "hw:../0",
            &long,
        ];
        for name in others {
            assert!(!is_microphone(name), "{name}");
        }
    }
}
