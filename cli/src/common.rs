//! What several commands share: their arguments, opening a model, printing figures.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::{Args, ValueEnum};
use serde::Serialize;
use wgtune_engine::Device;
use wgtune_engine::device::{Config, MatmulPrecision};
use wgtune_models::error::Error;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::files::{check_writable, read_bytes};
use wgtune_models::hash::xxh3;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, CONFIG_FILE, Tuned};
use wgtune_models::tasks::{Table, check_name};
use wgtune_models::train::run::{Begin, check_content};
use wgtune_models::transformer::Blueprint;
use wgtune_models::wording::listed;

use crate::numbers;

/// What a command ends with.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Where to compute, and from which seed.
#[derive(Args)]
pub struct Compute {
    /// auto, cpu, gpu, gpu:INDEX or gpu:NAME; `wgtune devices` lists them
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// The same seed on the same device gives the same result, to the bit
    #[arg(long, default_value_t = 0, value_parser = numbers::seed)]
    pub seed: u64,
    /// What matrix products may round their operands to: f32, or f16 where the device has matrix units for it
    #[arg(long, value_enum, default_value_t, value_name = "PRECISION")]
    pub matmul_precision: Precision,
    /// Take kernels by rule, instead of timing their variants on the device where they are first needed
    #[arg(long)]
    pub no_tune: bool,
}

impl Compute {
    /// Opens the device.
    pub fn open(&self) -> Result<Device, Box<dyn std::error::Error>> {
        self.open_as(self.config())
    }

    /// Opens the device to plan what it would hold, and to compute nothing.
    pub fn open_dry(&self) -> Result<Device, Box<dyn std::error::Error>> {
        self.open_as(Config { dry: true, ..self.config() })
    }

    fn open_as(&self, config: Config) -> Result<Device, Box<dyn std::error::Error>> {
        check_threads()?;
        let device = Device::open_with(&self.device, &config)?;
        device.words().iter().for_each(note);
        if self.matmul_precision == Precision::High && device.matmul_precision() == MatmulPrecision::Highest {
            note("this device has no matrix units for f16 (or they cannot be used): products run in f32");
        }
        Ok(device)
    }

    /// How the device is opened: tuned, with what is found kept in the user's cache folder.
    pub fn config(&self) -> Config {
        let cache = if self.no_tune { None } else { dirs::cache_dir().map(|folder| folder.join("wgtune")) };
        Config { cache, matmul_precision: self.matmul_precision.into(), ..Config::default() }
    }
}

/// Checks the number of threads that the environment asks for, since so many are started at once.
fn check_threads() -> Result<(), String> {
    const NAME: &str = "RAYON_NUM_THREADS";
    match std::env::var(NAME) {
        Ok(text) => numbers::whole(0..=4096)(&text).map(drop).map_err(|expected| format!("{NAME} is {text:?}: {expected}")),
        Err(_) => Ok(()),
    }
}

/// The values of `--matmul-precision`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Precision {
    /// Operands stay in f32
    #[default]
    Highest,
    /// Operands are rounded to f16, sums stay in f32: faster on a device with matrix units
    High,
}

impl From<Precision> for MatmulPrecision {
    fn from(precision: Precision) -> MatmulPrecision {
        match precision {
            Precision::Highest => MatmulPrecision::Highest,
            Precision::High => MatmulPrecision::High,
        }
    }
}

/// Which model, and what tunes it.
#[derive(Args)]
pub struct Base {
    /// A Hugging Face model directory: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A PEFT adapter directory to put on top
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    #[command(flatten)]
    pub task: Task,
    #[command(flatten)]
    pub force: Force,
}

/// Which adapter of a table.
#[derive(Args)]
pub struct Task {
    /// Of an --adapter that is a table of tasks, the one of this name
    #[arg(long, value_name = "NAME", value_parser = task_name, requires = "adapter")]
    pub task: Option<String>,
}

/// The name of a task.
pub fn task_name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.into())
}

impl Task {
    /// The folder of the adapter, in its table where it is one.
    pub fn of(&self, adapter: &Path) -> wgtune_models::Result<PathBuf> {
        match &self.task {
            Some(name) => Table::open(adapter)?.task(name),
            None if Table::is_one(adapter) => {
                let names = listed(Table::open(adapter)?.names());
                let message = format!("{} is a table of tasks: --task picks one of {names}", adapter.display());
                Err(Error::Data { message })
            }
            None => Ok(adapter.to_path_buf()),
        }
    }
}

/// Whether adapters are put on models that they were not made for.
#[derive(Args)]
pub struct Force {
    /// Put an adapter also on a model of other weights than it was made for
    #[arg(long)]
    pub force: bool,
}

impl Force {
    /// Checks that an adapter was made for this model, unless it is to be taken for any.
    pub fn check(&self, model: &Model, adapter: Option<&Path>) -> wgtune_models::Result<()> {
        adapter.filter(|_| !self.force).map_or(Ok(()), |adapter| model.check_adapter(adapter))
    }
}

impl Base {
    /// Opens the model's folder.
    pub fn open(&self) -> wgtune_models::Result<Model> {
        Model::open(&self.model)
    }

    /// The table of tasks that --adapter is, if it is one.
    pub fn table(&self) -> wgtune_models::Result<Option<Table>> {
        let adapter = self.adapter.as_ref().filter(|adapter| Table::is_one(adapter));
        adapter.map(|adapter| Table::open(adapter)).transpose()
    }

    /// Loads both onto a device, to be read only.
    pub fn load(&self, model: &Model, device: &Device) -> wgtune_models::Result<Tuned> {
        let adapter = self.adapter.as_ref().map(|adapter| self.task.of(adapter)).transpose()?;
        self.force.check(model, adapter.as_deref())?;
        model.load_adapted(device, adapter.as_deref())
    }
}

/// Which chat template makes text of a conversation.
#[derive(Args)]
pub struct Template {
    /// A chat template, a file of Jinja, in the place of the model's own
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
}

impl Template {
    /// That of the file, or of the model.
    pub fn open(&self, model: &Model) -> wgtune_models::Result<ChatTemplate> {
        model.template(self.template.as_deref())
    }
}

/// A prompt as text or as token ids.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Prompt {
    /// The prompt's text
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The prompt's token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = numbers::token_id)]
    pub ids: Option<Vec<u32>>,
}

impl Prompt {
    /// Its token ids, by the model's tokenizer where it is text, which fills the template of what is tuned.
    pub fn ids(&self, model: &Model, tuned: &Tuned) -> wgtune_models::Result<Vec<u32>> {
        match (&self.ids, &self.prompt) {
            (Some(ids), _) => Ok(ids.clone()),
            (None, text) => tuned.prompt(&model.tokenizer()?, text.as_deref().unwrap_or_default()),
        }
    }
}

/// Checks that the model takes so many tokens, or that the user said that it need not.
pub fn check_length(blueprint: &Blueprint, what: &str, tokens: usize, beyond: bool) -> Result<(), String> {
    match blueprint.check_length(what, tokens) {
        Err(error) if !blueprint.may_go_beyond() => Err(error.to_string()),
        Err(error) if !beyond => Err(format!("{error}: --beyond allows more")),
        _ => Ok(()),
    }
}

/// The user's word that what is there may be replaced.
#[derive(Args, Clone, Copy)]
pub struct Overwrite {
    /// Replace what an earlier command left there; without it nothing is ever overwritten
    #[arg(long)]
    pub overwrite: bool,
}

impl Overwrite {
    /// How a run begins, or another command that writes a folder.
    pub fn begin(self) -> Begin {
        if self.overwrite { Begin::Over } else { Begin::New }
    }

    /// Checks, before any work, that the folder `out` may be written, and that it is none of the folders that are `read`.
    pub fn check_folder(self, out: &Path, read: &[&Path]) -> Result<(), String> {
        check_folder(out, self.begin(), read, "--overwrite replaces what wgtune wrote")
    }

    /// Checks, before any work, that the file can be written, and that nothing is lost by it.
    pub fn check_file(self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        check_writable(file)?;
        if file.exists() && !self.overwrite {
            return Err(format!("{} is there already: choose another name, or --overwrite it", file.display()).into());
        }
        Ok(())
    }
}

/// Checks that `out` may be written by what begins so, and that it is none of the folders that are `read`; `advice` is for a new
/// folder that is not empty.
pub fn check_folder(out: &Path, begin: Begin, read: &[&Path], advice: &str) -> Result<(), String> {
    let whole = |path: &Path| path.canonicalize().ok();
    if let Some(read) = read.iter().find(|read| whole(read).is_some() && whole(read) == whole(out)) {
        return Err(format!("--out is {}, which is read: choose another folder", read.display()));
    }
    check_content(out, begin).map_err(|error| match error {
        Error::Data { message } if begin == Begin::New => format!("{message}; {advice}"),
        error => error.to_string(),
    })
}

/// A path by which two names of one place are told, whether it is there or not.
pub fn place_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let whole = |ancestor: &Path| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    };
    path.ancestors().find_map(whole).unwrap_or_else(|| path.clone())
}

/// Prints a value as one JSON document on standard output.
pub fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value)?;
    print_line(&text)
}

/// Prints a line on standard output. A reader that has gone away (`| head`) is no failure.
pub fn print_line(text: &str) -> Outcome {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether notes and progress are left out.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves notes and progress out from here on, or not.
pub fn say_nothing(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether notes and progress are wanted.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Says a line on standard error, beside the figures. Nobody listening is no failure.
pub fn note(text: impl Display) {
    if !is_quiet() {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Long work that was asked to stop, and stopped where it can go on; the text says how.
#[derive(Debug)]
pub struct Stopped(pub String);

impl Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// Whether somebody stopped what ended so.
pub fn is_interrupt(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<Stopped>() || matches!(error.downcast_ref(), Some(Error::Interrupted))
}

/// The exit code of a program that an interrupt ended, as shells count it.
pub const INTERRUPTED: u8 = 130;

/// Whether the program was interrupted; not there before somebody asks.
static INTERRUPT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Set by Ctrl-C (and SIGTERM), which is answered at once: `what` (as "this step") is finished first. A second one ends the
/// program where it is.
pub fn on_interrupt(what: &'static str) -> Result<Arc<AtomicBool>, ctrlc::Error> {
    if let Some(interrupted) = INTERRUPT.get() {
        return Ok(interrupted.clone());
    }
    let interrupted = INTERRUPT.get_or_init(Arc::default).clone();
    let flag = interrupted.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        note(format!("finishing {what}; again to quit"));
    })?;
    Ok(interrupted)
}

/// A hash of a file, or of the model or the adapter in a folder.
pub fn fingerprint(path: &Path) -> wgtune_models::Result<String> {
    match path.is_dir() {
        false => Ok(xxh3([read_bytes(path)?])),
        true if path.join(CONFIG_FILE).exists() => peft::fingerprint(path),
        true => {
            let model = Model::open_any(path)?;
            Ok(model.fingerprint(&model.hash_weights()?))
        }
    }
}

/// A number of bytes for a reader.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}
