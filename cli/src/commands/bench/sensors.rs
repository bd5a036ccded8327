//! What the system tells of the GPU's clock and power while it works.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::results::{DeviceUnderTest, Spread};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The GPU's state over the whole run, looked at twice a second. `None` is what the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuState {
    pub clock_megahertz: Option<Spread>,
    pub power_watts: Option<Spread>,
}

/// Looks at the GPU until it is asked what it saw.
pub struct Watch {
    stop: Sender<()>,
    seen: JoinHandle<Vec<Look>>,
}

/// The clock in MHz and the power in W, at one moment.
type Look = [Option<f64>; 2];

/// Where these are read.
enum Source {
    /// `nvidia-smi`, and the number of the GPU.
    Nvidia(String),
    /// Linux' folder of a graphics card, and of its sensors.
    Card(PathBuf, PathBuf),
}

impl Watch {
    /// Begins to look at the device, if it is a GPU that the system tells of.
    pub fn begin(device: &DeviceUnderTest) -> Option<Watch> {
        let source = if device.is_software() { None } else { Source::of(&device.name) }?;
        let (stop, stopped) = channel();
        let look_on = move || {
            let mut looks = vec![source.look()];
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                looks.push(source.look());
            }
            looks
        };
        Some(Watch { stop, seen: std::thread::spawn(look_on) })
    }

    /// What was seen.
    pub fn end(self) -> GpuState {
        drop(self.stop);
        let looks = self.seen.join().unwrap_or_default();
        let spread = |which: usize| {
            let values: Vec<f64> = looks.iter().filter_map(|look| look[which]).collect();
            (!values.is_empty()).then(|| Spread::of(&values))
        };
        GpuState { clock_megahertz: spread(0), power_watts: spread(1) }
    }
}

impl Source {
    fn of(device: &str) -> Option<Source> {
        if let Some(index) = nvidia("index,name").and_then(|list| index_of(&list, device)) {
            return Some(Source::Nvidia(index));
        }
        // Which card is which GPU is not told: of several, none is taken.
        let mut cards = cards(Path::new("/sys/class/drm"));
        match cards.pop() {
            Some((card, sensors)) if cards.is_empty() => Some(Source::Card(card, sensors)),
            _ => None,
        }
    }

    fn look(&self) -> Look {
        match self {
            Source::Nvidia(index) => nvidia("index,clocks.sm,power.draw").map_or([None; 2], |list| nvidia_look(&list, index)),
            Source::Card(card, sensors) => {
                let text = |path: PathBuf| std::fs::read_to_string(path).ok();
                let power = text(sensors.join("power1_average")).or_else(|| text(sensors.join("power1_input")));
                let clock = text(card.join("pp_dpm_sclk"));
                [clock.and_then(|text| current_clock(&text)), power.and_then(|text| Some(text.trim().parse::<f64>().ok()? / 1e6))]
            }
        }
    }
}

/// What NVIDIA's own program says of all its GPUs, a line each.
fn nvidia(query: &str) -> Option<String> {
    let mut command = Command::new("nvidia-smi");
    command.args([&format!("--query-gpu={query}"), "--format=csv,noheader,nounits"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// The number of the GPU by whose name a device's begins; of several alike the first.
fn index_of(list: &str, device: &str) -> Option<String> {
    let mut lines = list.lines().filter_map(|line| line.split_once(','));
    lines.find(|(_, name)| device.starts_with(name.trim())).map(|(index, _)| index.trim().to_string())
}

fn nvidia_look(list: &str, index: &str) -> Look {
    let mut lines = list.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<_>>());
    let line = lines.find(|line| line.first() == Some(&index)).unwrap_or_default();
    [1, 2].map(|at| line.get(at).and_then(|text| text.parse().ok()))
}

/// Cards that tell their power, and the folders of their sensors.
fn cards(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let list = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_card = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.contains('-'));
    let devices =
        list(folder.into()).filter(is_card).map(|path| path.join("device")).filter(|card| card.join("pp_dpm_sclk").exists());
    devices.filter_map(|card| Some((card.clone(), list(card.join("hwmon")).next()?))).collect()
}

/// The line with the star, as in `1: 1200Mhz *`.
fn current_clock(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_end().ends_with('*'))?;
    let (_, clock) = line.split_once(':')?;
    clock.trim().to_lowercase().split_once("mhz")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidias_program_prints_is_read_by_the_gpus_number() {
        let names = "0, NVIDIA A100-SXM4-40GB\n1, NVIDIA H200\n";
        assert_eq!(index_of(names, "NVIDIA H200 (vulkan)").as_deref(), Some("1"));
        assert_eq!(index_of(names, "AMD Radeon RX 7900 XTX (vulkan)"), None);
        let state = "0, 1410, 61.5\n1, 1980, [N/A]\n";
        assert_eq!([nvidia_look(state, "0"), nvidia_look(state, "1")], [[Some(1410.0), Some(61.5)], [Some(1980.0), None]]);
        assert_eq!(nvidia_look("", "0"), [None, None]);
    }

    #[test]
    fn the_folder_of_an_amd_card_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (card, sensors) = (folder.path().join("card1/device"), folder.path().join("card1/device/hwmon/hwmon3"));
        std::fs::create_dir_all(&sensors).unwrap();
        std::fs::create_dir_all(folder.path().join("card1-DP-1/device")).unwrap();
        std::fs::write(card.join("pp_dpm_sclk"), "0: 500Mhz\n1: 1200Mhz *\n2: 2500Mhz\n").unwrap();
        std::fs::write(sensors.join("power1_average"), "87000000\n").unwrap();
        assert_eq!(cards(folder.path()), [(card.clone(), sensors.clone())]);
        assert_eq!(Source::Card(card, sensors).look(), [Some(1200.0), Some(87.0)]);
        assert_eq!(current_clock("0: 500Mhz\n"), None);
    }
}
