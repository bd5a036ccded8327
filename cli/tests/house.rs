//! The house's rule: dependencies between its crates point one way.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let allowed = [
        ("shaders", vec![]),
        ("engine", vec!["wgtune-shaders"]),
        ("models", vec!["wgtune-engine"]),
        ("cli", vec!["wgtune-engine", "wgtune-models"]),
        ("benches", vec!["wgtune-engine", "wgtune-models"]),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (folder, allowed) in allowed {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let found: BTreeSet<&str> = manifest
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("wgtune-"))
            .collect();
        let more: Vec<&&str> = found.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(more.is_empty(), "{folder} depends on {more:?}, which the architecture does not allow");
    }
}

#[test]
fn only_the_gpu_device_names_wgpu_and_only_these_files_touch_the_file_system() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut broken = Vec::new();
    for file in sources(&root.join("engine/src")).into_iter().chain(sources(&root.join("models/src"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let code = |needle: &str| text.lines().any(|line| line.contains(needle) && !line.trim_start().starts_with("//"));
        if code("wgpu::") && !name.starts_with("engine/src/device/gpu") {
            broken.push(format!("{name} names wgpu"));
        }
        let files = [
            "models/src/formats/",
            "models/src/data/",
            "models/src/train/run.rs",
            "engine/src/device/tune.rs",
            "engine/src/process.rs",
        ];
        if (code("std::fs") || code("fs::")) && !files.iter().any(|allowed| name.starts_with(allowed)) {
            broken.push(format!("{name} touches the file system"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}
