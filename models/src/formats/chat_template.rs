//! Chat templates: a conversation's messages made into the text that a model was trained on.
//!
//! A template is Jinja, rendered as transformers renders it: `trim_blocks`, `lstrip_blocks`, loop controls,
//! Python's string methods, `raise_exception`, `strftime_now`, `tojson`, and `{% generation %}` blocks, which
//! mark what the assistant says. See <https://huggingface.co/docs/transformers/chat_templating_writing>.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::Value;

use super::files::read_text;
use super::json::Object;
use super::strftime::strftime_now;
use crate::error::{Error, Result};

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

/// A model's chat template, ready to render.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    tool_source: Option<String>,
    is_default: bool,
    variables: BTreeMap<String, String>,
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
        let template = ChatTemplate {
            path,
            is_default: source.is_none(),
            source: source.unwrap_or_else(|| CHATML.into()),
            tool_source,
            variables: special_tokens(&config),
        };
        template.environment(false)?;
        Ok(template)
    }

    /// A template from its text; `path` is what errors name, `variables` what it sees beside the
    /// conversation, such as `bos_token`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if it does not parse.
    pub fn new(path: &Path, source: &str, variables: BTreeMap<String, String>) -> Result<ChatTemplate> {
        let template =
            ChatTemplate { path: path.to_path_buf(), source: source.into(), tool_source: None, is_default: false, variables };
        template.environment(false)?;
        Ok(template)
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
        replace_generation_tags(&self.source).is_some()
    }

    /// The text of a conversation. `messages` are objects with `role` and `content`; `tools`, where there
    /// are any, is a list of JSON schemas; `add_generation_prompt` opens the assistant's next turn.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template refuses the conversation, with its reason.
    pub fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<Rendered> {
        let environment = self.environment(tools.is_some())?;
        let template = environment.get_template("chat").map_err(|error| self.error(&error))?;
        let text = template
            .render(context! {
                messages => Serde(messages),
                tools => Serde(tools),
                add_generation_prompt,
                ..minijinja::Value::from(self.variables.clone())
            })
            .map_err(|error| self.error(&error))?;
        take_out_marks(&text).ok_or_else(|| Error::ChatTemplate {
            path: self.path.clone(),
            message: "generation blocks do not match, or the conversation contains U+F0000 or U+F0001".into(),
        })
    }

    fn environment(&self, with_tools: bool) -> Result<Environment<'static>> {
        let source = match &self.tool_source {
            Some(source) if with_tools => source,
            _ => &self.source,
        };
        let source = replace_generation_tags(source).unwrap_or_else(|| source.clone());
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the default delimiters are sound");
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: String| strftime_now(&format));
        environment.add_template_owned("chat", source).map_err(|error| self.error(&error))?;
        Ok(environment)
    }

    fn error(&self, error: &minijinja::Error) -> Error {
        let reason = error.detail().map_or_else(|| error.kind().to_string(), String::from);
        let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
        Error::ChatTemplate { path: self.path.clone(), message: format!("{line}{reason}") }
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
