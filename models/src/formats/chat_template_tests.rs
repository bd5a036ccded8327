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

/// Renders what passes a limit; the error.
#[track_caller]
fn refused(source: &str) -> String {
    match render(source, conversation()) {
        Ok(rendered) => panic!("{} bytes", rendered.text.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_template_that_grows_without_end_is_refused_at_its_memory() {
    let double = |statement: &str| format!("{{% set x = 'abcdefgh' %}}{}", statement.repeat(60));
    for source in [
        double("{% set x = x + x %}"),
        double("{% set x = x ~ x %}"),
        double("{% set x = [x, x] | join %}"),
        double("{% set x = x | replace('a', x) %}"),
        double("{% set x %}{{ x }}{{ x }}{% endset %}"),
        "{% set n = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}".into(),
        "{% macro f(x, n) %}{% if n %}{{ f(x + x, n - 1) }}{% endif %}{% endmacro %}{{ f('abcdefgh', 60) }}".into(),
        "{{ 'a' * 10**8 }}".into(),
        "{% set x = ['a'] * 10**7 %}{{ x | list | length }}".into(),
        "{% for i in range(100000) %}{{ messages | tojson * 1000 }}{% endfor %}".into(),
        "{{ '%999999999d' | format(1) }}".into(),
        "{{ raise_exception('a' * 10**8) }}".into(),
        "{{ strftime_now('%B' * 10**7) }}".into(),
    ] {
        let message = refused(&source);
        assert!(message.starts_with("t.jinja: chat template: takes more than 64 MiB of memory"), "{source}: {message}");
    }
    let message = refused("{{ 'a' * 10**7 }}");
    assert!(message.contains("writes 10000000 bytes; expected at most"), "{message}");
    let message = refused("{{ messages | tojson(indent=99999999999) }}");
    assert_eq!(message, "t.jinja: chat template: line 1: tojson(indent=99999999999): expected at most 100");
}

#[test]
fn a_template_that_runs_without_end_is_refused_at_its_steps() {
    let loops = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(refused(loops), "t.jinja: chat template: line 1: takes more than 10000000 steps");
    let message = refused("{% for i in range(10**12) %}{% endfor %}");
    assert!(message.contains("range has too many elements"), "{message}");
}

#[test]
fn a_template_of_few_slow_steps_is_refused_at_its_deadline() {
    let slow = "{% set x = 'ab' * 10**6 %}{% for a in range(100000) %}{% if x | replace('a', 'b') == 1 %}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(Path::new("t.jinja"), slow, BTreeMap::new()).unwrap();
    for _ in 0..2 {
        // The second time it is not even tried.
        let message = template.render(&[], None, false).unwrap_err().to_string();
        assert_eq!(message, "t.jinja: chat template: takes longer than 10s");
    }
}

#[test]
fn a_template_that_calls_itself_without_end_is_refused() {
    for source in [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ caller() }}{% call f() %}{{ f() }}{% endcall %}{% endmacro %}{{ f() }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as chat %}{{ chat.x }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
    ] {
        let message = refused(source);
        assert!(message.starts_with("t.jinja: chat template: "), "{source}: {message}");
    }
    for source in ["{% include 'other' %}", "{% extends 'other' %}", "{% from 'other' import x %}"] {
        assert!(refused(source).contains("other"), "{source}");
    }
}

/// As many as the longest source has room for.
fn repeated(before: &str, each: &str, after: &str) -> String {
    format!("{before}{}{after}", each.repeat((SOURCE_BYTES - before.len() - after.len()) / each.len()))
}

#[test]
fn a_source_as_deep_as_it_may_be_long_is_parsed_or_refused() {
    for (before, each, after) in [
        ("{{ 1", "+1", " }}"),
        ("{{ x", ".a", " }}"),
        ("{{ x", "|e", " }}"),
        ("{{ x", "[0]", " }}"),
        ("{{ x", "()", " }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "(", "1 }}"),
        ("{{ ", "[", "1 }}"),
        ("{{ x", " is e", " }}"),
        ("{{ x", "<x", " }}"),
        ("{{ x", " if x", " }}"),
        ("{{ x", " if x else x", " }}"),
        ("{% set ", "(", "x = 1 %}"),
        ("{% set n", ".a", " = 1 %}"),
        ("{% if x %}", "{%elif x%}", "{% endif %}"),
        ("", "{%if x%}", ""),
        ("", "{%for a in x%}", ""),
        ("{% filter e", "|e", " %}{% endfilter %}"),
        ("{% set x = [] %}", "{%set x=[x]%}", "{{ x }}"),
    ] {
        let source = repeated(before, each, after);
        // Either is fine: what matters is that there is an answer.
        if let Err(error) = render(&source, conversation()) {
            assert!(matches!(error, Error::ChatTemplate { .. }), "{each}: {error}");
        }
    }
    let message = refused(&"a".repeat(SOURCE_BYTES + 1));
    assert_eq!(message, "t.jinja: chat template: its source has 131073 bytes; expected at most 131072");
}

#[test]
fn values_as_deep_as_they_may_be_are_used_and_dropped_or_refused() {
    let levels = [10_000, 60_000, 100_000, 100_000];
    for (wrap, unwrap) in [("[n.x]", "n.x"), ("{'a': n.x}", "n.x"), ("(n.x, 1)", "n.x"), ("[n.x][::-1]", "n.x")] {
        for (round, used) in ["", "X", "X | tojson", "X == X", "[X, X] | sort", "{X: 1}", "X | string"].into_iter().enumerate() {
            let nested = format!("{{% set n.x = {wrap} %}}");
            let used =
                if used.is_empty() { String::new() } else { format!("{{{{ ({}) | length }}}}", used.replace('X', unwrap)) };
            let count = levels[round % levels.len()];
            let source = format!(
                "{{% set n = namespace(x=[1]) %}}{{% for a in range({count}) %}}{nested}{{% endfor %}}{used}\
                 {{% for a in range(100000) %}}{nested}{{% endfor %}}{used}"
            );
            if let Err(error) = render(&source, conversation()) {
                assert!(matches!(error, Error::ChatTemplate { .. }), "{source}: {error}");
            }
        }
    }
}

#[test]
fn a_long_conversation_renders_as_a_short_one_does() {
    // The longest that real ones are, and parts of text that are as long.
    let source =
        format!("{{# {} #}}{}", "x".repeat(30_000), CHATML.replace("message.content or ''", "message.content.strip() | trim"));
    let turns: Vec<Value> = (0..1000)
        .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": format!("{turn} {}", "word ".repeat(200))}))
        .collect();
    let rendered = render(&source, turns.into()).unwrap();
    assert!(rendered.text.len() > 1_000_000 && rendered.generated.len() == 500);
    let listed = "{% set n = namespace(all=[]) %}{% for m in messages %}{% for w in m.content.split(' ') %}\
                  {% set n.all = n.all + [w + ' '] %}{% endfor %}{% endfor %}{{ n.all | join }}";
    let text = render(listed, json!([{"role": "user", "content": "word ".repeat(10_000)}])).unwrap().text;
    assert_eq!(text.len(), 50_001);
}
