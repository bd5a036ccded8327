use serde_json::json;

use super::*;

fn render(source: &str, messages: Value) -> Result<Rendered> {
    let variables = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
    let template = ChatTemplate::new(Path::new("t.jinja"), source, variables)?;
    template.render(messages.as_array().unwrap(), None, true)
}

fn text(source: &str) -> String {
    let messages = json!([{"role": "user", "content": " Grüße <b>'x'</b> "}]);
    render(source, messages).unwrap().text
}

#[test]
fn blocks_are_trimmed_as_transformers_trims_them() {
    let source = "{{ bos_token }}{% for m in messages %}\n    {% if m %}\n[{{ m.content }}]\n    {% endif %}\n{% endfor %}";
    assert_eq!(text(source), "<s>[ Grüße <b>'x'</b> ]\n");
}

#[test]
fn pythons_methods_and_names_work() {
    assert_eq!(text("{{ messages[0].content.strip().split(' ')[-1] }}"), "<b>'x'</b>");
    assert_eq!(text("{{ messages[0]['role'].upper() }}"), "USER");
    assert_eq!(text("{{ none }} {{ true }} {{ missing }}|"), "None True |");
    assert_eq!(text("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"), "1");
    assert_eq!(text("{% set n = namespace(k=1) %}{% for i in [1] %}{% set n.k = 5 %}{% endfor %}{{ n.k }}"), "5");
    assert_eq!(text("{{ strftime_now('%Y') | int > 2000 }}"), "True");
}

#[test]
fn json_is_spaced_as_python_spaces_it_and_not_escaped_for_html() {
    assert_eq!(text("{{ messages | tojson }}"), r#"[{"role": "user", "content": " Grüße <b>'x'</b> "}]"#);
    assert_eq!(text("{{ [1, {}] | tojson(indent=2) }}"), "[\n  1,\n  {}\n]");
}

#[test]
fn a_template_can_refuse_and_a_broken_one_names_its_line() {
    let error = render("a\n{{ raise_exception('roles must alternate') }}", json!([])).unwrap_err();
    assert_eq!(error.to_string(), "t.jinja: chat template: line 2: roles must alternate");
    let error = render("a\nb\n{% for %}", json!([])).unwrap_err().to_string();
    assert!(error.starts_with("t.jinja: chat template: line 3: "), "{error}");
}

fn conversation() -> Value {
    json!([
        {"role": "system", "content": "S"}, {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"},
        {"role": "assistant", "content": "B"},
    ])
}

fn generated(rendered: &Rendered) -> Vec<&str> {
    rendered.generated.iter().map(|span| &rendered.text[span.clone()]).collect()
}

#[test]
fn the_default_template_is_chatml_and_marks_the_assistant() {
    let rendered = render(CHATML, conversation()).unwrap();
    assert_eq!(
        rendered.text,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n\
         <|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n\
         <|im_start|>assistant\nB<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(generated(&rendered), ["A<|im_end|>", "B<|im_end|>"]);
}

#[test]
fn generation_tags_leave_the_text_as_if_they_were_any_block() {
    // `if true` is trimmed like every tag: with it in the tags' place the text must be the same.
    for (open, close) in [
        ("{% generation %}", "{% endgeneration %}"),
        ("{%- generation -%}", "{%- endgeneration -%}"),
        ("{%+ generation %}", "{% endgeneration -%}"),
        ("{%generation-%}", "{%-endgeneration%}"),
    ] {
        let source = format!("{{% for m in messages %}}\nx\n  {open}\n  {{{{ m.content }}}}\n  {close}\n y\n{{% endfor %}}");
        let plain = source.replace("endgeneration", "endif").replace("generation", "if true");
        let marked = render(&source, conversation()).unwrap();
        assert_eq!(marked.text, render(&plain, conversation()).unwrap().text, "{open}");
        assert_eq!(marked.generated.len(), 5);
        assert!(generated(&marked)[0].contains('S') && !generated(&marked)[0].contains('y'));
    }
}

#[test]
fn a_conversation_with_the_marks_in_it_is_refused() {
    let messages = json!([{"role": "assistant", "content": "\u{F0000}"}]);
    assert!(render(CHATML, messages).unwrap_err().to_string().contains("U+F0000"));
}

#[test]
fn templates_are_found_in_either_file() {
    let folder = tempfile::tempdir().unwrap();
    let open = || ChatTemplate::open(folder.path()).unwrap();
    assert!(open().is_default());

    let config = json!({"eos_token": {"content": "</s>"}, "chat_template": [
        {"name": "default", "template": "plain{{ eos_token }}"},
        {"name": "tool_use", "template": "with {{ tools | length }}"},
    ]});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    assert!(!open().is_default());
    assert_eq!(open().render(&[], None, false).unwrap().text, "plain</s>");
    let tools = json!([{}, {}]);
    assert_eq!(open().render(&[], Some(&tools), false).unwrap().text, "with 2");

    std::fs::write(folder.path().join(TEMPLATE_FILE), "from a file").unwrap();
    assert_eq!(open().source(), "from a file");
}
