//! Shaders that do the work of several dispatches of one: the text of that shader for each, with names and buffers of its own.

use std::collections::BTreeSet;

use crate::{Missing, source};

/// Bytes from the parameters of a grouped shader to those of its first dispatch, and from these to the next: each can also be bound alone on
/// every device.
pub const PARAMS_STRIDE: usize = 256;

/// A shader that runs `name` for several dispatches: those of a lane one behind the other by the same invocations, lanes side by side. Of
/// each dispatch it is told which of the group's buffers its bindings are, and of each buffer whether it is written.
///
/// Workgroups are counted from 0 on, along the first dimension first; there are as many as all lanes have, or more. The parameters begin
/// with a vector for each lane: the size of its grid, and the workgroups of it and the lanes before it. Those of the dispatches follow from
/// multiples of [`PARAMS_STRIDE`] on. Constants have the number of their dispatch behind their names, as `DTYPE_1`.
///
/// # Errors
/// If there is no such shader.
pub fn grouped(name: &str, lanes: &[Vec<Vec<usize>>], written: &[bool]) -> Result<String, Missing> {
    let text = without_comments(&source(name)?);
    let items = items(&text);
    let entry =
        items.iter().find(|item| item.attributes.contains("@compute")).ok_or_else(|| Missing { name: name.to_string() })?;
    let dispatches: Vec<&Vec<usize>> = lanes.iter().flatten().collect();

    let mut grouped: String = items.iter().filter(|item| item.keyword == "enable").map(|item| item.text).collect();
    let own: BTreeSet<&str> = items.iter().filter(|item| item.is_own()).map(|item| item.name).collect();
    let renamed = |number: usize, word: &str| match items.iter().find(|item| item.name == word) {
        Some(item) if item.space.starts_with("storage") => Some(format!("buffer_{}", dispatches[number][item.binding()?])),
        Some(item) if item.space == "uniform" => Some(format!("group.params_{number}")),
        _ => own.contains(word).then(|| format!("{word}_{number}")),
    };
    for (buffer, &is_written) in written.iter().enumerate() {
        let binding = |buffers: &[usize]| buffers.iter().position(|&other| other == buffer);
        let first = dispatches.iter().enumerate().find_map(|(number, buffers)| Some((number, binding(buffers)?)));
        let declared = first.and_then(|(number, binding)| {
            let item = items.iter().find(|item| item.space.starts_with("storage") && item.binding() == Some(binding))?;
            Some((number, item.text.split_once(':')?.1))
        });
        if let Some((number, of_type)) = declared {
            let access = if is_written { "read_write" } else { "read" };
            let of_type = with_names(of_type, false, |word| renamed(number, word));
            grouped += &format!("\n@group(0) @binding({buffer}) var<storage, {access}> buffer_{buffer}:{of_type}");
        }
    }
    for number in 0..dispatches.len() {
        for item in items.iter().filter(|item| item.is_own() || item.is_shared() && number == 0) {
            let text = with_names(item.text, item.keyword == "struct", |word| renamed(number, word));
            grouped += &format!("\n{}", without_builtins(&text));
        }
    }
    let params: String =
        (0..dispatches.len()).map(|number| format!(" @align({PARAMS_STRIDE}) params_{number}: Params,")).collect();
    grouped += &format!("\nstruct Group {{ lanes: array<vec4<u32>, {}>,{params} }}\n", lanes.len());
    grouped += "@group(1) @binding(0) var<uniform> group: Group;\n";
    grouped += &with_names(entry.attributes, false, |word| renamed(0, word));
    let has_memory = items.iter().any(|item| item.space == "workgroup");
    grouped += &entry_text(&Given::to(entry, &items), lanes, has_memory);
    Ok(grouped)
}

/// The entry point: which lane a workgroup is of, and its place there. Workgroup memory may be used again once all are done with it.
fn entry_text(given: &[Given], lanes: &[Vec<Vec<usize>>], has_memory: bool) -> String {
    let inputs = given.iter().flat_map(|given| &given.inputs).filter(|input| input.place().is_none());
    let inputs: String =
        inputs.map(|Input { builtin, name, of_type }| format!(", @builtin({builtin}) {name}: {of_type}")).collect();
    let mut text = format!(
        " fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) ids: vec3<u32>{inputs}) {{
    let of_all = (id.z * ids.y + id.y) * ids.x + id.x;
    "
    );
    let mut number = 0;
    for (lane, dispatches) in lanes.iter().enumerate() {
        let before = if lane == 0 { "0u".to_string() } else { format!("group.lanes[{}].w", lane - 1) };
        text += &format!(
            "if of_all < group.lanes[{lane}].w {{
        let grid = group.lanes[{lane}].xyz;
        let of_lane = of_all - {before};
        let place = vec3(of_lane % grid.x, of_lane / grid.x % grid.y, of_lane / (grid.x * grid.y));\n"
        );
        for behind in 0..dispatches.len() {
            let given: Vec<String> = given.iter().map(Given::text).collect();
            let barrier = if behind > 0 && has_memory { "        workgroupBarrier();\n" } else { "" };
            text += &format!("{barrier}        main_{number}({});\n", given.join(", "));
            number += 1;
        }
        text += if lane + 1 < lanes.len() { "    } else " } else { "    }\n}\n" };
    }
    text
}

/// What stands at the top of a shader.
struct Item<'a> {
    attributes: &'a str,
    /// All else of it.
    text: &'a str,
    keyword: &'a str,
    /// Where a variable lies, as `storage, read`.
    space: &'a str,
    name: &'a str,
}

/// What an entry point is given: an input, or a struct of some.
struct Given<'a> {
    of_struct: Option<&'a str>,
    inputs: Vec<Input<'a>>,
}

struct Input<'a> {
    builtin: &'a str,
    name: &'a str,
    of_type: &'a str,
}

impl<'a> Given<'a> {
    fn to(entry: &Item<'a>, items: &[Item<'a>]) -> Vec<Given<'a>> {
        let given = |text: &'a str| {
            if let Some(input) = Input::of(text) {
                return Some(Given { of_struct: None, inputs: vec![input] });
            }
            let (_, name) = text.split_once(':')?;
            let of_struct = items.iter().find(|item| item.keyword == "struct" && item.name == name.trim())?;
            let fields = of_struct.text.split_once('{')?.1;
            Some(Given { of_struct: Some(of_struct.name), inputs: fields.split(',').filter_map(Input::of).collect() })
        };
        entry.inputs().split(',').filter_map(given).collect()
    }

    /// What a dispatch is given in its place.
    fn text(&self) -> String {
        let inputs: Vec<&str> = self.inputs.iter().map(|input| input.place().unwrap_or(input.name)).collect();
        self.of_struct.map_or(inputs.join(", "), |name| format!("{name}({})", inputs.join(", ")))
    }
}

impl<'a> Input<'a> {
    fn of(text: &'a str) -> Option<Input<'a>> {
        let (builtin, rest) = text.split_once("@builtin(")?.1.split_once(')')?;
        let (name, of_type) = rest.split_once(':')?;
        Some(Input { builtin, name: name.trim(), of_type: of_type.trim().trim_end_matches('}').trim() })
    }

    /// What a lane has in its place, where that is another in each.
    fn place(&self) -> Option<&'static str> {
        match self.builtin {
            "workgroup_id" => Some("place"),
            "num_workgroups" => Some("grid"),
            _ => None,
        }
    }
}

impl<'a> Item<'a> {
    fn new(whole: &'a str) -> Item<'a> {
        let mut text = whole.trim();
        let start = text;
        while let Some(rest) = text.strip_prefix('@') {
            let word = rest.find(|c: char| !is_in_word(c)).unwrap_or(rest.len());
            let end = if rest[word..].starts_with('(') { rest.find(')').map_or(rest.len(), |at| at + 1) } else { word };
            text = rest[end..].trim_start();
        }
        let attributes = &start[..start.len() - text.len()];
        let (keyword, mut rest) = text.split_at(text.find(|c: char| !is_in_word(c)).unwrap_or(text.len()));
        let mut space = "";
        if let Some((inside, behind)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            (space, rest) = (inside, behind);
        }
        let rest = rest.trim_start();
        let name = &rest[..rest.find(|c: char| !is_in_word(c)).unwrap_or(rest.len())];
        Item { attributes, text, keyword, space, name }
    }

    /// Whether each dispatch has one of its own.
    fn is_own(&self) -> bool {
        matches!(self.keyword, "fn" | "override") || self.space == "private"
    }

    /// Whether all have the same.
    fn is_shared(&self) -> bool {
        matches!(self.keyword, "struct" | "alias" | "const") || self.space == "workgroup"
    }

    fn binding(&self) -> Option<usize> {
        self.attributes.split_once("@binding(")?.1.split_once(')')?.0.parse().ok()
    }

    /// What stands in the brackets of a function's inputs.
    fn inputs(&self) -> &'a str {
        let inside = self.text.split_once('(').map_or("", |(_, inside)| inside);
        let mut depth = 1;
        let end = inside.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        &inside[..end.unwrap_or(0)]
    }
}

/// What stands at the top of a text without comments.
fn items(text: &str) -> Vec<Item<'_>> {
    let (mut items, mut begun, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 && matches!(c, ';' | '}') {
            items.push(Item::new(&text[begun..=at]));
            begun = at + 1;
        }
    }
    items
}

/// The text with some of its words replaced, but not the names of members.
fn with_names(text: &str, is_struct: bool, renamed: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find(is_in_word) {
        out += &rest[..start];
        let end = start + rest[start..].find(|c| !is_in_word(c)).unwrap_or(rest.len() - start);
        let (word, behind) = (&rest[start..end], &rest[end..]);
        let is_member = out.ends_with('.') || is_struct && behind.trim_start().starts_with(':');
        match renamed(word).filter(|_| !is_member) {
            Some(name) => out += &name,
            None => out += word,
        }
        rest = behind;
    }
    out + rest
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn without_builtins(text: &str) -> String {
    let mut parts = text.split("@builtin(");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once(')').map_or("", |(_, behind)| behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    /// What all of a group agree in: the device, how many invocations a shader's teams are together (LANES * ROWS), and what
    /// `Kernel::grouped_by` names.
    const AGREED: [&str; 4] = ["SUBGROUP", "LANES", "ROWS", "HEAD_DIM"];

    #[test]
    fn workgroup_memory_depends_on_what_all_of_a_group_agree_in_alone() {
        for name in names().into_iter().filter(|name| !name.starts_with("ladder/")) {
            let text = without_comments(&source(&name).unwrap());
            let items = items(&text);
            let words = |text: &str| -> Vec<String> { text.split(|c| !is_in_word(c)).map(str::to_string).collect() };
            let shared = items.iter().filter(|item| item.space == "workgroup").map(|item| item.text);
            let sizes = items.iter().filter(|item| item.attributes.contains("@compute")).map(|item| item.attributes);
            let mut reached: Vec<String> = shared.chain(sizes).flat_map(words).collect();
            let mut at = 0;
            while at < reached.len() {
                let item = items.iter().find(|item| item.name == reached[at] && item.keyword != "fn");
                if let Some(item) = item.filter(|item| !AGREED.contains(&item.name)) {
                    // Only what is computed of others is not set from outside.
                    let is_computed = item.text.contains(['+', '*', '/', '(']) || item.keyword != "override";
                    assert!(is_computed, "{name}: {} decides over a workgroup's size or memory", item.name);
                    let more = words(item.text).into_iter().filter(|word| !reached.contains(word)).collect::<Vec<_>>();
                    reached.extend(more);
                }
                at += 1;
            }
        }
    }

    #[test]
    fn nothing_is_in_a_shader_that_would_be_lost_or_mean_another_thing() {
        let known = ["enable", "fn", "override", "struct", "alias", "const", "var"];
        for name in names().into_iter().filter(|name| !name.starts_with("ladder/")) {
            let text = without_comments(&source(&name).unwrap());
            assert!(!text.contains("global_invocation_id"), "{name}: that would be one of the whole group");
            let unknown: Vec<&str> = items(&text).iter().map(|item| item.keyword).filter(|word| !known.contains(word)).collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
        }
    }
}
