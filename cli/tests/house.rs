//! The house's rule: dependencies between its crates, and between the modules of each, point one way.

use std::collections::{BTreeMap, BTreeSet};
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
        let tests = name.ends_with("tests.rs");
        if (code("std::fs") || code("fs::")) && !tests && !files.iter().any(|allowed| name.starts_with(allowed)) {
            broken.push(format!("{name} touches the file system"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn modules_form_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in ["engine", "models"] {
        let mut uses = modules(&root.join(name).join("src"));
        // An op brings the cases that the laws run it on.
        if let Some(ops) = uses.get_mut("ops") {
            ops.remove("testing");
        }
        // What uses nothing that is left is no part of a circle.
        while let Some(last) = uses.iter().find(|(_, used)| used.is_empty()).map(|(module, _)| module.clone()) {
            uses.remove(&last);
            uses.values_mut().for_each(|used| used.retain(|module| *module != last));
        }
        assert!(uses.is_empty(), "{name}: a circle is among {uses:#?}");
    }
}

/// The modules at the top of a crate, and which of each other they use beside their tests.
fn modules(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let library = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let own: BTreeSet<&str> = library.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
    // What the crate's root takes from a module, as `pub use device::Device;`.
    let taken = |name: &str| {
        let line = library
            .lines()
            .find(|line| line.starts_with("pub use ") && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == name));
        line.and_then(|line| line.trim_start_matches("pub use ").split("::").next())
    };
    let mut uses: BTreeMap<String, BTreeSet<String>> = own.iter().map(|module| (module.to_string(), BTreeSet::new())).collect();
    for file in sources(source) {
        let path = file.strip_prefix(source).unwrap();
        let module = path.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_string();
        let (true, false) = (own.contains(module.as_str()), path.to_string_lossy().contains("tests.rs")) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for after in code.split("crate::").skip(1) {
            let names = match after.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![after],
            };
            for name in names.iter().filter_map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next()) {
                let used = own.get(name).copied().or_else(|| taken(name)).filter(|used| *used != module);
                uses.get_mut(&module).unwrap().extend(used.map(String::from));
            }
        }
    }
    uses
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}
