//! What the system says of this process.

use std::path::PathBuf;

/// Memory that a process holds, in bytes: tensors on the CPU, the pages read so far of mapped files, and all else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most since the process began.
    pub peak: u64,
}

/// The memory that this process holds; `None` where the system does not tell (only Linux is asked).
pub fn memory() -> Option<Memory> {
    let status = if cfg!(target_os = "linux") { std::fs::read_to_string("/proc/self/status").ok()? } else { return None };
    parse(&status)
}

/// Bytes that a process could take without swapping; `None` where the system does not tell (only Linux is asked).
pub fn available() -> Option<u64> {
    let status = if cfg!(target_os = "linux") { std::fs::read_to_string("/proc/meminfo").ok()? } else { return None };
    bytes_of(&status, "MemAvailable:")
}

/// A file of the folder that the program lies in, if it is there.
pub fn beside(name: &str) -> Option<PathBuf> {
    let file = std::env::current_exe().ok()?.with_file_name(name);
    file.is_file().then_some(file)
}

/// Reads what `proc(5)` says of `/proc/self/status`.
fn parse(status: &str) -> Option<Memory> {
    Some(Memory { resident: bytes_of(status, "VmRSS:")?, peak: bytes_of(status, "VmHWM:")? })
}

fn bytes_of(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_itself_lies_beside_the_program() {
        let program = std::env::current_exe().unwrap();
        assert_eq!(beside(program.file_name().unwrap().to_str().unwrap()), Some(program));
        assert_eq!(beside("no such file"), None);
    }

    #[test]
    fn resident_and_peak_are_found_among_the_rest() {
        let status = "Name:\twgtune\nVmPeak:\t  900 kB\nVmHWM:\t     300 kB\nVmRSS:\t     200 kB\nThreads:\t2\n";
        assert_eq!(parse(status), Some(Memory { resident: 200 * 1024, peak: 300 * 1024 }));
        assert_eq!(parse("Name:\twgtune\n"), None);
    }

    #[test]
    fn memory_that_is_written_is_resident() {
        let Some(before) = memory() else { return };
        let bytes = vec![1u8; 64 << 20];
        let after = memory().unwrap();
        assert!(after.peak >= after.resident.max(before.peak), "{before:?}, {after:?}");
        assert!(after.peak >= 64 << 20, "{after:?} with {} bytes", bytes.len());
    }
}
