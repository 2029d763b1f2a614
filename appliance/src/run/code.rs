//! Gives back the code that only the start needed.
//!
//! What a start runs through once (the config, certificates, the state of years) is most of the program, and its pages stay
//! mapped, so they count as this process's memory and are the last that the kernel takes from it. Unmapped, they are
//! plain page cache, and what runs on maps its own again.

use rustix::mm::{Advice, madvise};
use std::ops::Range;
use std::path::Path;
use tracing::{debug, warn};

/// Unmaps the pages of the program's own file that nothing was written to. Each comes back with its next use.
pub(super) fn give_back() {
    let (exe, maps) = (std::fs::read_link("/proc/self/exe"), std::fs::read_to_string("/proc/self/smaps"));
    let (Ok(exe), Ok(maps)) = (exe, maps) else {
        debug!("/proc is not readable: the code of the start stays mapped");
        return;
    };
    for Range { start, end } in unchanged(&exe, &maps) {
        let pages = std::ptr::with_exposed_provenance_mut(start);
        #[allow(unsafe_code, reason = "no safe call tells the kernel of pages")]
        // SAFETY: nobody can write to them, and nobody has (the loader has to some that cannot be written to now: they have
        // anonymous pages and are left out), so what is unmapped is read again from the same file.
        let done = unsafe { madvise(pages, end - start, Advice::LinuxDontNeed) };
        if let Err(error) = done {
            warn!(%error, "the code of the start stays mapped");
        }
    }
}

/// Addresses of a file's mappings that cannot be written to and have nothing that is not in the file, of `smaps`.
fn unchanged(file: &Path, smaps: &str) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut mapping: Option<Range<usize>> = None;
    for line in smaps.lines() {
        if let Some((range, is_wanted)) = head(file, line) {
            mapping = Some(range).filter(|_| is_wanted);
        } else if let Some(own) = line.strip_prefix("Anonymous:").or_else(|| line.strip_prefix("Swap:")) {
            mapping = mapping.filter(|_| own.split_whitespace().next() == Some("0"));
        } else if line.starts_with("VmFlags:") {
            // The last line of a mapping.
            all.extend(mapping.take());
        }
    }
    all
}

/// The first line of a mapping: address, rights, offset, device, inode, path. And whether it is of this file and only to be read
/// or run.
fn head(file: &Path, line: &str) -> Option<(Range<usize>, bool)> {
    let mut words = line.splitn(6, ' ');
    let (address, rights) = (words.next()?, words.next()?);
    let (start, end) = address.split_once('-')?;
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    let path = words.nth(3).unwrap_or_default().trim_start();
    Some((hex(start)?..hex(end)?, matches!(rights, "r-xp" | "r--p") && Path::new(path) == file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A mapping as Linux 6.1 tells of it, with lines left out.
    fn mapping(head: &str, anonymous: u32, swap: u32) -> String {
        format!(
            "{head}\nSize: 4 kB\nRss: 4 kB\nPrivate_Dirty: 0 kB\nAnonymous: {anonymous:>12} kB\nSwap: {swap:>10} kB\n\
             SwapPss: 0 kB\nTHPeligible:    0\nVmFlags: rd ex mr mw me\n"
        )
    }

    #[test]
    fn what_is_given_back_is_in_the_programs_own_file_as_it_was() {
        let own = "00000000 fe:00 4242                       /usr/bin/fieldgate";
        let smaps = [
            mapping(&format!("1000-2000 r--p {own}"), 0, 0),
            mapping(&format!("2000-5000 r-xp {own}"), 0, 0),
            // What the loader has written to, and what may be written to.
            mapping(&format!("5000-6000 r--p {own}"), 4, 0),
            mapping(&format!("6000-7000 r--p {own}"), 0, 4),
            mapping(&format!("7000-8000 rw-p {own}"), 0, 0),
            mapping(&format!("8000-9000 rwxp {own}"), 0, 0),
            mapping(&format!("9000-a000 r-xs {own}"), 0, 0),
            // Others'.
            mapping("a000-b000 r-xp 00000000 fe:00 77                 /usr/lib/libc.so.6", 0, 0),
            mapping("b000-c000 r-xp 00000000 00:00 0", 0, 0),
            mapping(&format!("c000-d000 r-xp {own} two"), 0, 0),
            mapping("ffffd000-ffffe000 r-xp 00000000 00:00 0          [vdso]", 0, 0),
        ];
        let smaps = smaps.concat();
        let given = |file: &str| -> Vec<(usize, usize)> {
            unchanged(Path::new(file), &smaps).iter().map(|it| (it.start, it.end)).collect()
        };
        assert_eq!(given("/usr/bin/fieldgate"), [(0x1000, 0x2000), (0x2000, 0x5000)]);
        assert_eq!(given("/usr/bin/fieldgate two"), [(0xc000, 0xd000)]);
        assert_eq!(given("/usr/bin/other"), []);
        // Cut off before it is known whether something was written to it.
        let cut = smaps.split("Anonymous").next().unwrap();
        assert!(unchanged(Path::new("/usr/bin/fieldgate"), cut).is_empty());
        assert!(unchanged(Path::new("/a"), "nonsense\n1-2 r-xp\nx-y r-xp 0 0 0 /a\nVmFlags:\n").is_empty());
    }

    /// KiB of this program's code that are mapped now.
    fn mapped() -> u64 {
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let exe = exe.to_str().unwrap();
        let mut lines = smaps.lines().skip_while(|line| !(line.contains(" r-xp ") && line.ends_with(exe)));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn code_that_is_not_run_is_not_mapped_afterwards() {
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        for range in unchanged(&exe, &smaps) {
            let mut all = vec![0; range.len()];
            memory.read_exact_at(&mut all, range.start as u64).unwrap();
        }
        let all = mapped();
        // Other tests of this process map theirs meanwhile.
        let least = (0..100).map(|_| {
            give_back();
            mapped()
        });
        let some = least.min().unwrap();
        assert!(some < all / 2, "{some} of {all} KiB are mapped");
    }
}
