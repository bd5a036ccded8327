//! The WGSL kernels of wgtune, and the loader that hands out their text.
//!
//! One kernel a file, `wgsl/<name>.wgsl`, whose entry point is `main`. Buffers are `@group(0)` in the order of the kernel's
//! accesses, parameters are `@group(1) @binding(0) var<uniform>`. A line `#import <name>` stands for the text of
//! `wgsl/<name>.wgsl`, which has no entry point of its own. This crate knows nothing of tensors or devices.

use include_dir::{Dir, include_dir};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/wgsl");

/// A shader that cannot be handed out: a mistake in this crate or in a kernel's declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no shader {name:?}: expected one of wgsl/*.wgsl")]
pub struct Missing {
    /// The name asked for.
    pub name: String,
}

/// The names of all shaders that have an entry point, sorted. What another one imports is not a shader of its own.
pub fn names() -> Vec<&'static str> {
    let text = |name: &str| FILES.get_file(format!("{name}.wgsl")).and_then(|file| file.contents_utf8()).unwrap_or_default();
    let all: Vec<&str> = FILES.files().filter_map(|file| file.path().file_stem()?.to_str()).collect();
    let imported: Vec<&str> = all.iter().flat_map(|name| text(name).lines().filter_map(import)).collect();
    let is_whole = |name: &&str| !imported.contains(name) && source(name).is_ok_and(|text| text.contains("@compute"));
    let mut names: Vec<&str> = all.into_iter().filter(is_whole).collect();
    names.sort_unstable();
    names
}

/// The text of one shader, with its imports put in (each once).
///
/// # Errors
/// If it, or something that it imports, does not exist.
pub fn source(name: &str) -> Result<String, Missing> {
    let mut text = String::new();
    append(name, &mut Vec::new(), &mut text)?;
    Ok(text)
}

/// A text with its imports put in (each once): a shader that is written when it is needed.
///
/// # Errors
/// If something that it imports does not exist.
pub fn expand(text: &str) -> Result<String, Missing> {
    let mut expanded = String::new();
    append_text(text, &mut Vec::new(), &mut expanded)?;
    Ok(expanded)
}

fn append(name: &str, imported: &mut Vec<String>, text: &mut String) -> Result<(), Missing> {
    let missing = || Missing { name: name.to_string() };
    let file = FILES.get_file(format!("{name}.wgsl")).ok_or_else(missing)?;
    append_text(file.contents_utf8().ok_or_else(missing)?, imported, text)
}

fn append_text(from: &str, imported: &mut Vec<String>, text: &mut String) -> Result<(), Missing> {
    for line in from.lines() {
        match import(line) {
            Some(import) if !imported.iter().any(|done| done == import) => {
                imported.push(import.to_string());
                append(import, imported, text)?;
            }
            Some(_) => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}

/// What a line imports.
fn import(line: &str) -> Option<&str> {
    line.strip_prefix("#import ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    #[test]
    fn every_shader_is_valid_wgsl() {
        assert!(names().len() > 1, "{:?}", names());
        for name in names() {
            let text = source(name).unwrap();
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
            validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
            assert!(module.entry_points.iter().any(|entry| entry.name == "main"), "{name} has no entry point `main`");
        }
    }

    #[test]
    fn an_import_that_does_not_exist_is_named() {
        assert_eq!(source("nothing").unwrap_err().to_string(), r#"no shader "nothing": expected one of wgsl/*.wgsl"#);
    }
}
