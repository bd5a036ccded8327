//! Writing files so that a reader, or the next run, never sees one half-written.
//!
//! Whatever is written goes to a hidden name beside its target, is flushed to the disk, and is then
//! renamed over the target, which the file system does in one step. A process killed in between
//! leaves at most one `.NAME.partial`, which the next write of NAME replaces.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes the file `path` by `write`; the old content stays until the new one is complete.
///
/// # Errors
/// [`Error::Io`] if the disk is full or the folder cannot be written, or whatever `write` returns.
/// Nothing is left behind, and an existing file is untouched.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let partial = Partial::beside(path)?;
    let file = File::create(&partial.path).map_err(Error::io(&partial.path))?;
    fill(path, file, write)?;
    fs::rename(&partial.path, path).map_err(Error::io(path))?;
    sync_parent(path)
}

/// Writes `bytes` as the whole file `path`. See [`write_file`].
///
/// # Errors
/// As [`write_file`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file(path, |out| out.write_all(bytes).map_err(Error::io(path)))
}

/// Gives the file `from` a second name, or where the file system has none, makes a copy. For files that are only ever replaced.
///
/// # Errors
/// [`Error::Io`] naming `from`.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).map_err(Error::io(from))
}

/// Adds `bytes` to the end of the file `path`, made with its folder if it is not there, in one write.
///
/// # Errors
/// [`Error::Io`] if the disk is full or the file cannot be written; it is then as it was.
pub fn append_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    make_parent(path)?;
    append_to(&mut OpenOptions::new().append(true).create(true).open(path).map_err(Error::io(path))?, path, bytes)
}

/// Adds `bytes` to the end of the open file `path`, in one write.
///
/// # Errors
/// As [`append_bytes`].
pub fn append_to(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    let length = file.metadata().map_err(Error::io(path))?.len();
    file.write_all(bytes).map_err(|error| {
        // A part of them may have found room.
        let _ = file.set_len(length);
        Error::io(path)(error)
    })
}

/// The file `path` for reading and adding to its end, made if it is not there, and nobody else's until it is dropped; `None` where it
/// is another's.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened.
pub fn lock(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // Not every network's file system has locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
    }
}

/// Whether the file `path` can be written, for one that long work ends with. Only its folder is made, where it is missing.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be written, [`Error::Data`] if `path` is a folder or a device.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::Data { message: format!("{} is a folder: expected the name of a file", path.display()) });
    }
    if path.exists() && !path.is_file() {
        return Err(Error::Data { message: format!("{} is no regular file: expected the name of one", path.display()) });
    }
    let partial = Partial::beside(path)?;
    File::create(&partial.path).map(drop).map_err(Error::io(&partial.path))
}

/// Writes the folder `path` as a whole: `fill` is given an empty folder beside it, which then takes
/// its place. A folder that was there is replaced, with everything in it.
///
/// No file system swaps two folders in one portable step. A process killed between the two renames
/// leaves the old folder complete as `.NAME.previous`; [`recover_directory`] puts it back.
///
/// # Errors
/// [`Error::Io`], or whatever `fill` returns; the old folder is then still in place.
pub fn write_directory(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    recover_directory(path)?;
    let partial = Partial::beside(path)?;
    fs::create_dir_all(&partial.path).map_err(Error::io(&partial.path))?;
    fill(&partial.path)?;
    sync_directory(&partial.path)?;

    let previous = sibling(path, "previous");
    if path.exists() {
        fs::rename(path, &previous).map_err(Error::io(path))?;
    }
    if let Err(error) = fs::rename(&partial.path, path) {
        let _ = fs::rename(&previous, path);
        return Err(Error::io(path)(error));
    }
    sync_parent(path)?;
    remove(&previous)
}

/// Finishes a [`write_directory`] that was cut off between its renames: call it before reading `path`.
///
/// # Errors
/// [`Error::Io`] if the folder's parent cannot be written.
pub fn recover_directory(path: &Path) -> Result<()> {
    let previous = sibling(path, "previous");
    if !previous.exists() {
        return Ok(());
    }
    if path.exists() {
        return remove(&previous);
    }
    fs::rename(&previous, path).map_err(Error::io(path))
}

/// The names of what is in the folder `path`, hidden ones too, sorted.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn names(path: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(path).map_err(Error::io(path))?;
    let mut names: Vec<_> = entries.map(|entry| Ok(entry.map_err(Error::io(path))?.file_name())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Gives the folder `from` the name `to` beside it, which nothing has.
///
/// # Errors
/// [`Error::Io`] if it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io(from))?;
    sync_parent(to)
}

/// Reads a whole text file.
///
/// # Errors
/// [`Error::Io`] naming the file; also when it is not UTF-8, naming the line and the byte.
pub fn read_text(path: &Path) -> Result<String> {
    text(path, read_bytes(path)?)
}

/// Reads a whole file.
///
/// # Errors
/// As [`open_regular`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// Opens a file to read it, unless it is a folder or something that may keep its reader waiting: a pipe, a device, a socket.
///
/// # Errors
/// [`Error::Io`] naming what it is.
pub fn open_regular(path: &Path) -> Result<File> {
    let found = fs::metadata(path).map_err(Error::io(path))?;
    if !found.is_file() {
        let kind = if found.is_dir() { "a folder" } else { "a pipe, a device or a socket" };
        let message = io::Error::new(io::ErrorKind::InvalidInput, format!("{kind}; expected a file"));
        return Err(Error::io(path)(message));
    }
    File::open(path).map_err(Error::io(path))
}

/// The text that the file `path` holds, given its bytes.
///
/// # Errors
/// [`Error::Io`] if they are not UTF-8, naming the line and the byte.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let (bytes, at) = (error.as_bytes(), error.utf8_error().valid_up_to());
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        let found = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16".into(),
            _ => format!("line {line}: byte {at} of the file, {:#04x}, is not UTF-8", bytes[at]),
        };
        Error::io(path)(io::Error::new(io::ErrorKind::InvalidData, format!("{found}; expected text in UTF-8")))
    })
}

/// Writes the open file whole and down to the disk; `path` is what errors name.
fn fill(path: &Path, file: File, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    write(&mut writer)?;
    let file = writer.into_inner().map_err(|error| Error::io(path)(error.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// A name that is being written; whatever bears it when this is dropped is removed.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> Result<Partial> {
        let path = sibling(target, "partial");
        make_parent(&path)?;
        remove(&path)?;
        Ok(Partial { path })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::create_dir_all(parent).map_err(Error::io(parent)),
        None => Ok(()),
    }
}

fn sibling(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".");
    name.push(suffix);
    target.with_file_name(name)
}

/// The name of what a write was for that was killed and left this; any other name is its own.
pub fn target(name: &str) -> &str {
    let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial").or(name.strip_suffix(".previous")));
    unfinished.unwrap_or(name)
}

/// Removes what bears this name: a file, a link, or a folder with everything in it; nothing where there is none.
///
/// # Errors
/// [`Error::Io`].
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Error::io(path))
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes a rename survive a power cut; only Unix lets a folder be opened for this.
fn sync_directory(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let directory = File::open(path).map_err(Error::io(path))?;
        directory.sync_all().map_err(Error::io(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        check_writable(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        write_bytes(&path, b"old").unwrap();
        check_writable(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(check_writable(&path.join("inside a file")).unwrap_err().to_string().contains("trace.json"));
        let error = check_writable(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("is a folder: expected the name of a file"), "{error}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_bytes(&path, b"old").unwrap();
        let failed = write_file(&path, |out| {
            out.write_all(&[0; 4096]).unwrap();
            Err(Error::Data { message: "full".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["weights"]);
    }

    #[test]
    fn a_leftover_of_a_killed_write_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".weights.partial"), b"half").unwrap();
        write_bytes(&folder.path().join("weights"), b"whole").unwrap();
        assert_eq!(names(folder.path()), ["weights"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        // /dev/full is a file on a disk without a free byte.
        let full = Path::new("/dev/full");
        let error = fill(full, File::create(full).unwrap(), |out| out.write_all(b"x").map_err(Error::io(full)));
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("/dev/full: No space left"), "{message}");
    }

    #[test]
    fn text_that_is_not_utf_8_is_named_by_line_and_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for (bytes, expected) in [
            (
                &b"{\n\"a\": \"\xe9t\xe9\"}"[..],
                "config.json: line 2: byte 8 of the file, 0xe9, is not UTF-8; expected text in UTF-8",
            ),
            (b"caf\xc3", "config.json: line 1: byte 3 of the file, 0xc3, is not UTF-8; expected text in UTF-8"),
            (b"\xff\xfea\0", "config.json: UTF-16; expected text in UTF-8"),
        ] {
            write_bytes(&path, bytes).unwrap();
            let error = read_text(&path).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        for name in ["a", "b"] {
            write_directory(&path, |to| write_bytes(&to.join(name), b"x")).unwrap();
        }
        assert_eq!(names(&path), ["b"]);
        assert_eq!(names(folder.path()), ["checkpoint"]);
    }

    #[test]
    fn a_failed_directory_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        write_directory(&path, |to| write_bytes(&to.join("a"), b"x")).unwrap();
        let failed = write_directory(&path, |to| {
            write_bytes(&to.join("b"), b"x")?;
            Err(Error::Data { message: "stop".into() })
        });
        assert!(failed.is_err());
        assert_eq!(names(&path), ["a"]);
        assert_eq!(names(folder.path()), ["checkpoint"]);
    }

    #[test]
    fn a_directory_cut_off_between_its_renames_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        fs::create_dir(folder.path().join(".checkpoint.previous")).unwrap();
        recover_directory(&path).unwrap();
        assert_eq!(names(folder.path()), ["checkpoint"]);
    }
}
