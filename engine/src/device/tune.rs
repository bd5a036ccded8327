//! What was the fastest shader of each kernel on this device, kept on disk from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::kernel::AnyKernel;

/// The layout of the file; another one is not read.
const VERSION: u32 = 2;

/// The winners of one device.
pub(crate) struct Winners {
    file: PathBuf,
    content: Content,
    /// What was looked up before, by kernel and bucket.
    known: FxHashMap<Vec<u32>, usize>,
    hashes: FxHashMap<usize, u64>,
    changed: bool,
    key: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    /// Adapter and driver: winners of another are of no use.
    device: String,
    /// The name of a shader by kernel, hash of the kernel's shaders, and bucket.
    winners: BTreeMap<String, String>,
}

impl Winners {
    /// Those in `folder` of a device, and a word on a file that could not be used. `device` names adapter, driver and version.
    pub fn open(folder: &Path, device: &str) -> (Winners, Option<String>) {
        let file = folder.join(format!("tuning-{:016x}.json", hash_of(device)));
        let fresh = Content { version: VERSION, device: device.to_string(), winners: BTreeMap::new() };
        let ignored = |reason: &str| Some(format!("{} is ignored: {reason}; this device is tuned anew", file.display()));
        let (content, word) = match fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (fresh, None),
            Err(error) => (fresh, ignored(&error.to_string())),
            Ok(bytes) => match serde_json::from_slice::<Content>(&bytes) {
                Err(error) => (fresh, ignored(&error.to_string())),
                Ok(content) if content.version != VERSION => (fresh, ignored(&format!("expected version {VERSION}"))),
                Ok(content) if content.device != device => (fresh, ignored(&format!("it is of {}", content.device))),
                Ok(content) => (content, None),
            },
        };
        (
            Winners { file, content, known: FxHashMap::default(), hashes: FxHashMap::default(), changed: false, key: Vec::new() },
            word,
        )
    }

    /// The fastest shader of a kernel for parameters of this bucket, if that is known.
    pub fn find(&mut self, kernel: &'static AnyKernel, params: &[u32]) -> Option<usize> {
        self.key.clear();
        self.key.extend(address(kernel));
        bucket(kernel, params, &mut self.key);
        if let Some(&shader) = self.known.get(&self.key) {
            return Some(shader);
        }
        let entry = self.entry(kernel, params);
        let name = self.content.winners.get(&entry)?;
        let shader = (0..kernel.shaders).find(|&shader| shader_name(kernel, shader) == *name)?;
        self.known.insert(self.key.clone(), shader);
        Some(shader)
    }

    /// Keeps the fastest shader of a bucket.
    pub fn insert(&mut self, kernel: &'static AnyKernel, params: &[u32], shader: usize) {
        let entry = self.entry(kernel, params);
        self.content.winners.insert(entry, shader_name(kernel, shader));
        self.changed = true;
    }

    /// Writes what is new. A cache that cannot be written is no failure: the next run tunes again.
    pub fn save(&mut self) {
        if std::mem::take(&mut self.changed)
            && let Ok(text) = serde_json::to_vec_pretty(&self.content)
        {
            write(&self.file, &text);
        }
    }

    fn entry(&mut self, kernel: &'static AnyKernel, params: &[u32]) -> String {
        let hash = *self.hashes.entry(std::ptr::from_ref(kernel) as usize).or_insert_with(|| {
            let texts = (0..kernel.shaders).map(|shader| wgtune_shaders::source((kernel.source)(shader)).unwrap_or_default());
            hash_of(&texts.collect::<Vec<_>>())
        });
        let mut words = Vec::new();
        bucket(kernel, params, &mut words);
        let words: Vec<String> = words.iter().map(u32::to_string).collect();
        format!("{} {hash:016x} {}", kernel.name, words.join(","))
    }
}

/// A file of the cache, if it is there.
pub(crate) fn read(file: &Path) -> Option<Vec<u8>> {
    fs::read(file).ok()
}

/// Writes a file of the cache beside its place, then moves it there.
pub(crate) fn write(file: &Path, bytes: &[u8]) {
    let Some(folder) = file.parent() else { return };
    let beside = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&beside, bytes)).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
}

/// Adds the words of a bucket: what the kernel names it by, rounded.
fn bucket(kernel: &AnyKernel, params: &[u32], words: &mut Vec<u32>) {
    let start = words.len();
    (kernel.bucket)(bytemuck::cast_slice(params), words);
    words[start..].iter_mut().for_each(|word| *word = rounded(*word));
}

/// A bucket holds what differs in size by less than two; small numbers, often flags and types, each have their own.
fn rounded(word: u32) -> u32 {
    if word <= 64 { word } else { word.checked_next_power_of_two().unwrap_or(u32::MAX) }
}

/// The same file may be run in several ways: which of a kernel's shaders it is counts too.
fn shader_name(kernel: &AnyKernel, shader: usize) -> String {
    format!("{shader} {}", (kernel.source)(shader))
}

fn address(kernel: &'static AnyKernel) -> [u32; 2] {
    let address = std::ptr::from_ref(kernel) as u64;
    [address as u32, (address >> 32) as u32]
}

pub(crate) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Device;
    use crate::kernel::{Access, Halves, Kept, Traits};
    use crate::ops::{self, OPS};
    use crate::passes;
    use crate::random::Philox;
    use crate::recording::Command;
    use crate::testing::{Draw, backward};

    /// A kernel whose parameters are rows and their width.
    fn softmax() -> &'static AnyKernel {
        OPS.iter().flat_map(|op| op.kernels).find(|kernel| kernel.name == "softmax").expect("there is one")
    }

    #[test]
    fn winners_come_back_for_their_bucket_and_their_device_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut winners, word) = Winners::open(folder.path(), "card, driver 1");
        assert_eq!(word, None);
        assert_eq!(winners.find(softmax(), &[1000, 3]), None);
        winners.insert(softmax(), &[1000, 3], 1);
        winners.save();
        let (mut again, word) = Winners::open(folder.path(), "card, driver 1");
        assert_eq!(word, None);
        for (params, expected) in [([1000, 3], Some(1)), ([1024, 3], Some(1)), ([1025, 3], None), ([1000, 4], None)] {
            assert_eq!(again.find(softmax(), &params), expected, "{params:?}");
        }
        let (mut other, _) = Winners::open(folder.path(), "card, driver 2");
        assert_eq!(other.find(softmax(), &[1000, 3]), None);
    }

    #[test]
    fn a_corrupt_or_foreign_file_is_ignored_with_a_word_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("tuning-{:016x}.json", hash_of("card")));
        let foreign = r#"{"version": 2, "device": "another", "winners": {}}"#;
        for (content, reason) in [("{\"version\": 2, \"dev", "EOF"), (foreign, "it is of another"), ("[]", "expected")] {
            fs::write(&file, content).unwrap();
            let (mut winners, word) = Winners::open(folder.path(), "card");
            assert!(word.is_some_and(|word| word.contains(reason) && word.contains("tuning-")), "{content}");
            winners.insert(softmax(), &[1, 1], 0);
            winners.save();
            assert_eq!(Winners::open(folder.path(), "card").1, None);
        }
    }

    #[test]
    fn a_bucket_is_of_shapes_and_no_adapter_is_tried_with_what_is_written_for_others() {
        let device = Device::cpu();
        let x = device.tensor(&[1.0; 64 * 64], [64, 64]);
        let products = [1, 2].map(|key| ops::dropout(&ops::matmul(&x, &x), Philox::new(key), 0.5));
        let recorded = device.recorded();
        let commands = passes::finish(recorded.clone(), &passes::reads(&recorded, |_| true)).commands;
        drop(products);
        let dispatches = commands.iter().filter_map(|command| match command {
            Command::Dispatch { kernel, params, .. } => Some((*kernel, params)),
            _ => None,
        });
        let products: Vec<_> = dispatches.filter(|(kernel, _)| kernel.name == "matmul").collect();
        let words = |(kernel, params): (&AnyKernel, &Vec<u32>)| {
            let mut words = Vec::new();
            bucket(kernel, params, &mut words);
            words
        };
        let [(kernel, first), (_, second)] = products[..] else { panic!("expected two products, got {commands:?}") };
        assert_ne!(first, second, "a product that drops has its key among its parameters");
        assert_eq!(words((kernel, first)), words((kernel, second)));

        let tried = |traits: Traits| -> Vec<&str> {
            let lowered = passes::lower(recorded.clone(), &traits, &mut Kept::default(), || 1 << 63).commands;
            let product = lowered.iter().find(|command| command.name() == "matmul");
            let Some(Command::Dispatch { kernel, params, .. }) = product else { panic!("expected a product, got {lowered:?}") };
            let is_tried = |&shader: &usize| (kernel.is_candidate)(bytemuck::cast_slice(params), shader, &traits);
            (0..kernel.shaders).filter(is_tried).map(kernel.source).collect()
        };
        let real = Traits { subgroups: Some((32, 32)), ..Traits::default() };
        assert_eq!(
            tried(real.clone()),
            ["matmul_tile_any", "matmul_tile_32x16", "matmul_tile_32", "matmul_tile_64", "matmul_tile_128"]
        );
        let halves = Traits { halves: Some(Halves::Matrices16), ..real.clone() };
        assert_eq!(tried(halves).last(), Some(&"matmul_matrix_16"));
        assert!(tried(Traits { software: true, ..real }).contains(&"matmul_subgroup"));
    }

    #[test]
    fn every_kernel_that_may_be_timed_names_its_bucket() {
        let (mut named, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for op in OPS {
            for case in (op.cases)() {
                let device = Device::cpu();
                let outputs = case.call(&case.tensors(&device, Draw::Plain));
                drop(backward(&outputs, Draw::Plain));
                for command in device.recorded().commands {
                    let Command::Dispatch { kernel, params, .. } = command else { continue };
                    if kernel.shaders < 2 || kernel.access.contains(&Access::Update) {
                        continue;
                    }
                    seen.insert(kernel.name);
                    let mut words = Vec::new();
                    bucket(kernel, &params, &mut words);
                    if !words.is_empty() {
                        named.insert(kernel.name);
                    }
                }
            }
        }
        assert!(seen.len() > 10, "{seen:?}");
        assert_eq!(named, seen);
    }
}
