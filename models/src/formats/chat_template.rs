//! Chat templates: a conversation's messages made into the text that a model was trained on.
//!
//! A template is Jinja, rendered as transformers renders it: `trim_blocks`, `lstrip_blocks`, loop controls,
//! Python's string methods, `raise_exception`, `strftime_now`, `tojson`, and `{% generation %}` blocks, which
//! mark what the assistant says. See <https://huggingface.co/docs/transformers/chat_templating_writing>.
//!
//! A template is also a program by whoever made the model. It is parsed and run in a [sandbox](super::sandbox), within limits
//! that real ones stay far below: the longest have 30 KiB, and take a few hundred steps a message.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::Value;

use super::files::read_text;
use super::json::Object;
use super::sandbox::{Limits, Sandbox};
use super::strftime::strftime_now;
use crate::error::{Error, Result};
use crate::wording::sentence;

/// The file that a template of its own lies in.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

/// The template of models that bring none: [ChatML](https://github.com/openai/openai-python/blob/v0.28.1/chatml.md).
pub const CHATML: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- (message.content or '') }}
            {%- if message.tool_calls %}
                {{- message.tool_calls | tojson }}
            {%- endif %}
            {{- '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- (message.content or '') }}
        {%- if loop.first and tools %}
            {{- '\\n' + tools | tojson }}
        {%- endif %}
        {{- '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

/// Bytes of a template's source. What is parsed nests by no more than one level a byte, which the sandbox's stack has room for.
const SOURCE_BYTES: usize = 128 << 10;
/// Instructions of one rendering.
const STEPS: u64 = 10_000_000;
/// Bytes that are written for any conversation, and for each byte of a longer one.
const OUTPUT_BYTES: (usize, usize) = (1 << 20, 16);
/// What a rendering may hold and take. The bytes grow with the conversation, by this for each of its own.
const LIMITS: Limits = Limits { bytes: 64 << 20, blocks: 300_000, time: Duration::from_secs(10) };
const BYTES_A_BYTE: usize = 32;
/// Columns of `tojson(indent=...)`.
const LARGEST_INDENT: usize = 100;

/// The names of a model's template, and of the one for conversations with tools, in its environment.
const CHAT: &str = "chat";
const TOOL_USE: &str = "tool use";

/// A model's chat template, ready to render.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    is_default: bool,
    marks_generation: bool,
    variables: BTreeMap<String, String>,
    environment: Arc<Environment<'static>>,
    has_tool_use: bool,
    sandbox: Sandbox,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The bytes of `text` that `{% generation %}` blocks wrote, in order; empty where the template has none.
    pub generated: Vec<Range<usize>>,
}

/// What stands in a rendered text for the two tags of a `{% generation %}` block: private-use characters,
/// taken out again before anybody sees the text.
const OPEN: char = '\u{F0000}';
const CLOSE: char = '\u{F0001}';

impl ChatTemplate {
    /// The template of a model's folder: `chat_template.jinja`, or the key `chat_template` of
    /// `tokenizer_config.json`, or else [`CHATML`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] and [`Error::Value`] for the files, [`Error::ChatTemplate`] for a
    /// template that does not parse.
    pub fn open(directory: &Path) -> Result<ChatTemplate> {
        let config = Object::read_optional(&directory.join("tokenizer_config.json"))?;
        let file = directory.join(TEMPLATE_FILE);
        let (path, source, tool_source) = if file.exists() {
            let source = read_text(&file)?;
            (file, Some(source), None)
        } else {
            let (source, tool_source) = sources_in_config(&config)?;
            (config.path.clone(), source, tool_source)
        };
        let is_default = source.is_none();
        let source = source.unwrap_or_else(|| CHATML.into());
        ChatTemplate::parse(path, source, tool_source, is_default, special_tokens(&config))
    }

    /// The template of a file of its own, with the special tokens of a model's folder.
    ///
    /// # Errors
    /// As [`open`](ChatTemplate::open).
    pub fn open_file(file: &Path, directory: &Path) -> Result<ChatTemplate> {
        let config = Object::read_optional(&directory.join("tokenizer_config.json"))?;
        ChatTemplate::new(file, &read_text(file)?, special_tokens(&config))
    }

    /// A template from its text; `path` is what errors name, `variables` what it sees beside the
    /// conversation, such as `bos_token`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if it does not parse.
    pub fn new(path: &Path, source: &str, variables: BTreeMap<String, String>) -> Result<ChatTemplate> {
        ChatTemplate::parse(path.to_path_buf(), source.into(), None, false, variables)
    }

    fn parse(
        path: PathBuf,
        source: String,
        tool_source: Option<String>,
        is_default: bool,
        variables: BTreeMap<String, String>,
    ) -> Result<ChatTemplate> {
        let has_tool_use = tool_source.is_some();
        let marked = replace_generation_tags(&source);
        let marks_generation = marked.is_some();
        let marked_tool_use = tool_source.map(|source| replace_generation_tags(&source).unwrap_or(source));
        let sources = [(CHAT, Some(marked.unwrap_or_else(|| source.clone()))), (TOOL_USE, marked_tool_use)];
        let sandbox = Sandbox::new();
        let parsed = match sources.iter().flat_map(|(_, source)| source).map(String::len).max() {
            Some(bytes) if bytes > SOURCE_BYTES => Err(format!("its source has {bytes} bytes; expected at most {SOURCE_BYTES}")),
            _ => sandbox.run(LIMITS, move || environment(sources)).and_then(|parsed| parsed),
        };
        match parsed {
            Ok(environment) => {
                let environment = Arc::new(environment);
                Ok(ChatTemplate { path, source, is_default, marks_generation, variables, environment, has_tool_use, sandbox })
            }
            Err(message) => Err(Error::ChatTemplate { path, message }),
        }
    }

    /// Whether the model brings no template and [`CHATML`] stands in.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template marks what the assistant says, by `{% generation %}` blocks.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// The text of a conversation. `messages` are objects with `role` and `content`; `tools`, where there
    /// are any, is a list of JSON schemas; `add_generation_prompt` opens the assistant's next turn.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template refuses the conversation, with its reason, or passes a limit; if that could only
    /// be stopped from outside, all that follows is refused with the same words.
    pub fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<Rendered> {
        let name = if self.has_tool_use && tools.is_some() { TOOL_USE } else { CHAT };
        let context = context! {
            messages => Serde(messages),
            tools => Serde(tools),
            add_generation_prompt,
            ..minijinja::Value::from(self.variables.clone())
        };
        let given: usize = messages.iter().chain(tools).map(weight).sum();
        let (least, each) = OUTPUT_BYTES;
        let output = least.saturating_add(each.saturating_mul(given));
        let limits = Limits { bytes: LIMITS.bytes.saturating_add(BYTES_A_BYTE.saturating_mul(given)), ..LIMITS };
        let environment = self.environment.clone();
        let rendered = self.sandbox.run(limits, move || {
            let text = environment.get_template(name).and_then(|template| template.render(context));
            let text = text.map_err(|error| reason(&error))?;
            if text.len() > output {
                return Err(format!("writes {} bytes; expected at most {output} for this conversation", text.len()));
            }
            take_out_marks(&text)
                .ok_or_else(|| "generation blocks do not match, or the conversation contains U+F0000 or U+F0001".to_string())
        });
        rendered.and_then(|rendered| rendered).map_err(|message| Error::ChatTemplate { path: self.path.clone(), message })
    }
}

/// Parses the templates that are there.
fn environment(sources: [(&'static str, Option<String>); 2]) -> std::result::Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .expect("the default delimiters are sound");
    environment.set_syntax(syntax);
    environment.set_debug(false);
    environment.set_fuel(Some(STEPS));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: String| strftime_now(&format));
    for (name, source) in sources {
        if let Some(source) = source {
            environment.add_template_owned(name, source).map_err(|error| reason(&error))?;
        }
    }
    Ok(environment)
}

/// What an error says, and on which line, at a length that can be read.
fn reason(error: &minijinja::Error) -> String {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("takes more than {STEPS} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), String::from),
    };
    let reason = sentence(reason);
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    format!("{line}{reason}")
}

/// About how many bytes a value takes as JSON.
fn weight(value: &Value) -> usize {
    const NODE: usize = 16;
    match value {
        Value::String(text) => NODE + text.len(),
        Value::Array(list) => NODE + list.iter().map(weight).sum::<usize>(),
        Value::Object(map) => NODE + map.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>(),
        _ => NODE,
    }
}

/// The default template of `tokenizer_config.json`, and the one for conversations with tools: the key
/// holds one template, or a list of named ones.
fn sources_in_config(config: &Object) -> Result<(Option<String>, Option<String>)> {
    let expected = "a template, or a list of objects with `name` and `template`";
    let Some(Value::Array(list)) = config.get("chat_template") else {
        return Ok((config.string("chat_template")?, None));
    };
    let named = |name: &str| {
        let template = list.iter().find(|item| item["name"] == name)?;
        template["template"].as_str().map(String::from)
    };
    match named("default") {
        Some(default) => Ok((Some(default), named("tool_use"))),
        None => Err(config.error("chat_template", expected)),
    }
}

/// `bos_token` and its like: strings, or objects with `content`.
pub(crate) fn special_tokens(config: &Object) -> BTreeMap<String, String> {
    let content = |value: &Value| value.as_str().or(value["content"].as_str()).map(String::from);
    config
        .map
        .iter()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| Some((key.clone(), content(value)?)))
        .collect()
}

/// Puts marks in the place of `{% generation %}` and `{% endgeneration %}`; `None` if there are none.
///
/// The mark is printed between two blocks, of which the first bears the tag's whitespace control on the
/// left and the second that on the right, so the text around comes out as it would round the tag.
fn replace_generation_tags(source: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = source;
    let mut found = false;
    while let Some(start) = rest.find("{%") {
        let tag_end = rest[start..].find("%}").map_or(rest.len(), |end| start + end + 2);
        let (before, tag) = (&rest[..start], &rest[start..tag_end]);
        rest = &rest[tag_end..];
        out += before;
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let control = |c: Option<char>| c.filter(|c| matches!(c, '-' | '+')).map(String::from);
        let left = control(inner.chars().next()).unwrap_or_default();
        let right = control(inner.chars().next_back()).unwrap_or_default();
        let (word, mark) = match inner.trim_matches(['-', '+']).trim() {
            "generation" => ("if true", OPEN),
            "endgeneration" => ("endif", CLOSE),
            _ => {
                out += tag;
                continue;
            }
        };
        found = true;
        out += &format!("{{%{left} {word} %}}{{{{ '{mark}' }}}}{{% {word} {right}%}}");
    }
    out += rest;
    found.then_some(out)
}

/// The text without marks, and what lay between them; `None` if they are not in pairs.
fn take_out_marks(text: &str) -> Option<Rendered> {
    let mut out = String::with_capacity(text.len());
    let mut generated = Vec::new();
    let mut open = None;
    for c in text.chars() {
        match (c, open) {
            (OPEN, None) => open = Some(out.len()),
            (CLOSE, Some(start)) => {
                generated.push(start..out.len());
                open = None;
            }
            (OPEN | CLOSE, _) => return None,
            _ => out.push(c),
        }
    }
    open.is_none().then_some(Rendered { text: out, generated })
}

fn raise_exception(message: String) -> std::result::Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python's `json.dumps` spaces it, without the escapes for HTML that Jinja's own filter makes.
fn tojson(value: &minijinja::Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    if let Some(width) = indent.filter(|&width| width > LARGEST_INDENT) {
        let message = format!("tojson(indent={width}): expected at most {LARGEST_INDENT}");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
    // The default anyway: letters of all scripts are written as themselves.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
    };
    let failed = |error: &dyn std::fmt::Display| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    written.map_err(|error| failed(&error))?;
    String::from_utf8(out).map_err(|error| failed(&error))
}

/// `{"a": 1, "b": [2, 3]}`.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
#[path = "chat_template_tests.rs"]
mod tests;
