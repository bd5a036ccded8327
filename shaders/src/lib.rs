//! The WGSL kernels of wgtune, and the loader that hands out their text.
//!
//! One kernel a file, `wgsl/<name>.wgsl`, whose entry point is `main`. Buffers are `@group(0)` in the order of the kernel's
//! accesses, parameters are `@group(1) @binding(0) var<uniform>`. A line `#import <name>` stands for the text of
//! `wgsl/<name>.wgsl`, which is no shader of its own. What stands between `#repeat CHUNK 8 while CHUNK < LIMIT` and `#end` stands there
//! 8 times, each behind its `if`, with `0u`, `1u`, .. for `CHUNK`: lines for arrays that are to lie in registers, and so are to be indexed by
//! constants alone. Behind a line `#loops` it is a loop instead, where that many lines would be compiled for minutes. This crate knows
//! nothing of tensors or devices.
//!
//! `ladder/` is the project's teaching page: matmul and causal attention from the definition to the kernels in use, a rung a
//! file, each whole in itself and one idea, named in its first line, away from the one before. `ladder/matmul_1` is the name of
//! `ladder/matmul_1.wgsl`. Read them in order, or side by side: `diff shaders/ladder/matmul_6.wgsl shaders/ladder/matmul_7.wgsl`.

mod grouped;

use include_dir::{Dir, include_dir};

pub use grouped::{PARAMS_STRIDE, grouped};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/wgsl");
static LADDER: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/ladder");

/// A shader that cannot be handed out: a mistake in this crate or in a kernel's declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no shader {name:?}: expected one of wgsl/*.wgsl or ladder/*.wgsl")]
pub struct Missing {
    /// The name asked for.
    pub name: String,
}

/// The names of all shaders that have an entry point, sorted. What another one imports is not a shader of its own.
pub fn names() -> Vec<String> {
    let named = |prefix: &'static str, files: &'static Dir<'_>| {
        files.files().filter_map(move |file| Some(format!("{prefix}{}", file.path().file_stem()?.to_str()?)))
    };
    let all: Vec<String> = named("", &FILES).chain(named("ladder/", &LADDER)).collect();
    let imports = |name: &String| file(name).unwrap_or_default().lines().filter_map(import);
    let imported: Vec<&str> = all.iter().flat_map(imports).collect();
    let is_whole =
        |name: &&String| !imported.contains(&name.as_str()) && source(name).is_ok_and(|text| text.contains("@compute"));
    let mut names: Vec<String> = all.iter().filter(is_whole).cloned().collect();
    names.sort_unstable();
    names
}

/// The first line of a shader, without its comment signs: for a rung of the ladder, its idea.
///
/// # Errors
/// If there is no such shader.
pub fn idea(name: &str) -> Result<&'static str, Missing> {
    Ok(file(name)?.lines().next().unwrap_or_default().trim_start_matches("//").trim())
}

/// The text of one shader, with its imports put in (each once).
///
/// # Errors
/// If it, or something that it imports, does not exist.
pub fn source(name: &str) -> Result<String, Missing> {
    expand(file(name)?, &[])
}

/// A text with its imports put in (each once), but for those that it has `own` text for: a shader that is written when it is needed.
///
/// # Errors
/// If something that it imports does not exist.
pub fn expand(text: &str, own: &[&str]) -> Result<String, Missing> {
    let imported = own.iter().map(|name| name.to_string()).collect();
    let mut expanded = Expanded { imported, ..Expanded::default() };
    expanded.append(text)?;
    Ok(expanded.text)
}

/// What directives have made of a text so far.
#[derive(Default)]
struct Expanded {
    text: String,
    imported: Vec<String>,
    /// Whether what is repeated is a loop.
    loops: bool,
}

impl Expanded {
    fn append(&mut self, from: &str) -> Result<(), Missing> {
        let mut lines = from.lines();
        while let Some(line) = lines.next() {
            if let Some(repeat) = Repeat::begun_by(line) {
                let repeated: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "#end").collect();
                self.repeat(repeat, &repeated.join("\n"));
            } else if line.trim() == "#loops" {
                self.loops = true;
            } else if let Some(name) = import(line) {
                if !self.imported.iter().any(|done| done == name) {
                    self.imported.push(name.to_string());
                    self.append(file(name)?)?;
                }
            } else {
                self.text += &format!("{line}\n");
            }
        }
        Ok(())
    }

    fn repeat(&mut self, Repeat { name, times, condition }: Repeat, lines: &str) {
        if self.loops {
            self.text += &format!("for (var {name} = 0u; {condition}; {name}++) {{\n{lines}\n}}\n");
        } else {
            let once = |time: usize| format!("if {condition} {{\n{lines}\n}}\n").replace(name, &format!("{time}u"));
            (0..times).for_each(|time| self.text += &once(time));
        }
    }
}

/// What a line that begins a repetition says: what is replaced, how often the lines stand there at most, and while what is so.
struct Repeat<'a> {
    name: &'a str,
    times: usize,
    condition: &'a str,
}

impl Repeat<'_> {
    fn begun_by(line: &str) -> Option<Repeat<'_>> {
        let (counted, condition) = line.trim().strip_prefix("#repeat ")?.split_once(" while ")?;
        let (name, times) = counted.split_once(' ')?;
        Some(Repeat { name, times: times.parse().ok()?, condition })
    }
}

/// What a line imports.
fn import(line: &str) -> Option<&str> {
    line.strip_prefix("#import ").map(str::trim)
}

fn file(name: &str) -> Result<&'static str, Missing> {
    let (files, stem) = name.strip_prefix("ladder/").map_or((&FILES, name), |stem| (&LADDER, stem));
    let text = files.get_file(format!("{stem}.wgsl")).and_then(|file| file.contents_utf8());
    text.ok_or_else(|| Missing { name: name.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use naga::back::{PipelineConstants, hlsl, msl, pipeline_constants::process_overrides, spv};
    use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    /// Panics unless it is valid and can be written for every system.
    fn check(name: &str, text: &str) {
        let checks = BoundsCheckPolicies { index: BoundsCheckPolicy::Restrict, ..Default::default() };
        let for_vulkan = spv::Options { bounds_check_policies: checks, ..Default::default() };
        let for_metal = msl::Options { lang_version: (2, 4), bounds_check_policies: checks, ..Default::default() };
        // Direct3D 12's own compiler knows this model, without f16 and subgroups; DXC knows the other.
        let is_for_dxc = text.contains("enable f16;") || text.contains("subgroup");
        let shader_model = if is_for_dxc { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V5_1 };
        let for_direct3d = hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };

        let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let info = validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
        assert!(module.entry_points.iter().any(|entry| entry.name == "main"), "{name} has no entry point `main`");
        // The writers panic at some operations on matrices that are valid.
        let (module, info) = process_overrides(&module, &info, None, &PipelineConstants::default()).unwrap();
        spv::write_vec(&module, &info, &for_vulkan, None).unwrap_or_else(|e| panic!("{name} as SPIR-V: {e}"));
        let (metal, _) =
            msl::write_string(&module, &info, &for_metal, &Default::default()).unwrap_or_else(|e| panic!("{name} as MSL: {e}"));
        // Metal's compiler may take it that there is neither.
        for word in ["INFINITY", "NAN", "isnan", "isinf"] {
            assert!(!metal.contains(word), "{name} as MSL has {word}");
        }
        // There are no cooperative matrices in Direct3D.
        if !text.contains("enable wgpu_cooperative_matrix;") {
            let mut direct3d = String::new();
            hlsl::Writer::new(&mut direct3d, &for_direct3d, &Default::default())
                .write(&module, &info, None)
                .unwrap_or_else(|e| panic!("{name} as HLSL: {e}"));
        }
    }

    #[test]
    fn every_shader_is_valid_wgsl_and_can_be_written_for_vulkan_metal_and_direct3d() {
        assert!(names().len() > 1, "{:?}", names());
        names().iter().for_each(|name| check(name, &source(name).unwrap()));
    }

    #[test]
    fn every_shader_but_the_ladders_can_be_grouped() {
        for name in names().into_iter().filter(|name| !name.starts_with("ladder/")) {
            let text = source(&name).unwrap();
            // What finds out the size of subgroups has no parameters, and is no kernel.
            if !text.contains("struct Params") {
                continue;
            }
            let bindings: Vec<&str> = text.split("@group(0) @binding(").skip(1).collect();
            let mut written = Vec::new();
            for binding in bindings {
                let (number, rest) = binding.split_once(')').unwrap();
                let number: usize = number.parse().unwrap();
                written.resize(written.len().max(number + 1), false);
                written[number] = rest.starts_with(" var<storage, read_write>");
            }
            // Two behind each other and one beside them, with the same first buffer; the second adds the result of the first.
            let buffers = |first: usize| [0].into_iter().chain(first + 1..first + written.len()).collect::<Vec<_>>();
            let mut lanes = [vec![buffers(0), buffers(written.len())], vec![buffers(2 * written.len())]];
            let residual = text.lines().find(|line| line.contains("> residual: ")).and_then(|line| line.split(['(', ')']).nth(3));
            if let Some(residual) = residual {
                lanes[0][1][residual.parse::<usize>().unwrap()] = written.iter().position(|written| *written).unwrap();
            }
            check(&format!("{name}, grouped"), &grouped(&name, &lanes, &written.repeat(3)).unwrap());
        }
    }

    #[test]
    fn repeated_lines_count() {
        let text = "a\n#repeat AT 2 while AT < n\nx[AT] = AT;\n#end\nb\n";
        let lines = "a\nif 0u < n {\nx[0u] = 0u;\n}\nif 1u < n {\nx[1u] = 1u;\n}\nb\n";
        assert_eq!(expand(text, &[]).unwrap(), lines);
        let looped = "a\nfor (var AT = 0u; AT < n; AT++) {\nx[AT] = AT;\n}\nb\n";
        assert_eq!(expand(&format!("#loops\n{text}"), &[]).unwrap(), looped);
    }

    #[test]
    fn what_a_text_has_itself_is_not_imported() {
        let [all, without] = [&[][..], &["store"]].map(|own| expand("#import common\n#import store\n", own).unwrap());
        assert!(
            all.contains("fn store") && !without.contains("fn store") && without.contains("fn linear_workgroup"),
            "{without}"
        );
    }

    #[test]
    fn an_import_that_does_not_exist_is_named() {
        let expected = r#"no shader "nothing": expected one of wgsl/*.wgsl or ladder/*.wgsl"#;
        assert_eq!(source("nothing").unwrap_err().to_string(), expected);
    }

    #[test]
    fn the_ladders_have_every_rung_and_an_idea_on_each() {
        for ladder in ["matmul", "attention"] {
            let rungs = names().iter().filter(|name| name.starts_with(&format!("ladder/{ladder}_"))).count();
            assert!(rungs > 1, "{ladder} has {rungs} rungs");
            for rung in 1..=rungs {
                let idea = idea(&format!("ladder/{ladder}_{rung}")).unwrap();
                assert!(idea.ends_with('.') && idea.len() < 100, "rung {rung} of {ladder} names no idea in one line: {idea:?}");
            }
        }
    }
}
