use serde_json::json;

use super::*;
use crate::data::encode::tests::{Setting, encode};
use crate::data::rows::Content;
use crate::formats::chat_template::CHATML;

/// ChatML without marks: what turns are found in by rendering prefixes.
const UNMARKED: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Leaves out what was thought in earlier turns, as templates of reasoning models do.
const FORGETFUL: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m.content if loop.last else m.content.split('</think>')[-1] }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn messages() -> Vec<Value> {
    let says = |role: &str, content: &str| json!({"role": role, "content": content});
    vec![
        says("system", "be kind"),
        says("user", "hello"),
        says("assistant", "hi there"),
        says("user", "bye"),
        says("assistant", "see you"),
    ]
}

fn conversation() -> Content {
    Content::Conversation { messages: messages(), tools: None }
}

/// The text of every example of the conversation, and what carries loss in it.
fn learnt(template: &str, messages: Vec<Value>, last_turn_only: bool) -> (Vec<(String, Vec<String>)>, Report) {
    let setting = Setting::new(template);
    let encoder = Encoder { last_turn_only, ..setting.encoder(1000) };
    let (examples, report) = encode(&encoder, vec![Content::Conversation { messages, tools: None }]).unwrap();
    (examples.iter().map(|example| setting.show(example)).collect(), report)
}

#[test]
fn the_assistants_turns_are_learnt_with_marks_and_without() {
    let expected = ["hi there<|im_end|>", "see you<|im_end|>"];
    let marked = Setting::new(CHATML);
    let (example, report) = marked.encode(conversation());
    let (shown, learnt) = marked.show(&example);
    assert_eq!((learnt, report.by_turn), (expected.map(String::from).to_vec(), 0));

    let unmarked = Setting::new(UNMARKED);
    let (example, report) = unmarked.encode(conversation());
    // Here the line's end, which no mark leaves out, is learnt too.
    let learnt = expected.map(|turn| format!("{turn}\n")).to_vec();
    assert_eq!((unmarked.show(&example), report.by_turn), ((shown, learnt), 0));
}

#[test]
fn of_an_exchange_only_the_answer_is_learnt() {
    let setting = Setting::new(CHATML);
    let content = Content::Exchange { messages: messages(), learnt_from: 4, tools: None };
    let (example, _) = setting.encode(content);
    assert_eq!(setting.show(&example).1, ["see you<|im_end|>\n"]);
}

#[test]
fn only_the_last_turn_is_learnt_where_that_is_said() {
    for template in [CHATML, UNMARKED, FORGETFUL] {
        let (examples, report) = learnt(template, messages(), true);
        assert_eq!((examples.len(), examples[0].1.clone()), (1, vec!["see you<|im_end|>\n".to_string()]));
        assert_eq!(report.by_turn, 0);
    }
}

#[test]
fn a_template_that_forgets_gets_an_example_a_turn_each_as_generation_would_see_it() {
    let says = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = vec![
        says("user", "hello"),
        says("assistant", "<think>greet</think>hi there"),
        says("user", "bye"),
        says("assistant", "<think>part</think>see you"),
    ];
    let (examples, report) = learnt(FORGETFUL, messages, false);
    let first = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n";
    let answers = ["<think>greet</think>hi there<|im_end|>\n", "<think>part</think>see you<|im_end|>\n"];
    let second = format!("{first}hi there<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n");
    let expected = [(first, answers[0]), (&second, answers[1])];
    assert_eq!(examples, expected.map(|(before, answer)| (format!("{before}{answer}"), vec![answer.to_string()])));
    assert_eq!((report.by_turn, report.rows, report.examples), (1, 1, 2));
    assert!(
        report
            .to_string()
            .ends_with("; 1 made an example a turn, since the template writes a turn otherwise once another follows")
    );
}

#[test]
fn a_template_that_rewrites_the_question_once_it_is_answered_is_an_error() {
    let rewrites = "{% for m in messages %}{% if loop.last %}!{% endif %}[{{ m.role }}]{{ m.content }}\
        {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let setting = Setting::new(rewrites);
    let exchange = Content::Exchange { messages: messages(), learnt_from: 4, tools: None };
    for (content, message) in [(conversation(), 3), (exchange, 5)] {
        let error = encode(&setting.encoder(1000), vec![content]).unwrap_err().to_string();
        let expected =
            format!("d.jsonl:1: the chat template does not write message {message} behind what it writes of those before");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn the_end_of_a_turn_is_learnt_wherever_the_template_writes_it() {
    let unmarked_end = "{% for m in messages %}[{{ m.role }}]\
        {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\
        <|im_end|>{% endfor %}";
    // Between turns only: the text up to an answer does not hold its end.
    let between = "{% for m in messages %}{% if not loop.first %}<|im_end|>{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}\
        {% if add_generation_prompt %}<|im_end|>[assistant]{% endif %}";
    for (template, last) in [(unmarked_end, "see you<|im_end|>"), (between, "see you")] {
        let (examples, _) = learnt(template, messages(), false);
        assert_eq!(examples[0].1, ["hi there<|im_end|>", last]);
    }
}

#[test]
fn a_conversation_that_the_assistant_opens_is_learnt_without_the_templates_own_system_message() {
    let template = UNMARKED.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if loop.first %}<|im_start|>system\nobey<|im_end|>\n{% endif %}",
    );
    let (examples, _) = learnt(&template, messages().split_off(2), false);
    assert_eq!(examples[0].1, ["hi there<|im_end|>\n", "see you<|im_end|>\n"]);
}

#[test]
fn a_prompt_that_opens_more_than_is_written_afterwards_only_says_where_the_answer_begins() {
    let template = UNMARKED.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
    let (examples, _) = learnt(&template, messages(), false);
    assert_eq!(examples[0].1, ["hi there<|im_end|>\n", "see you<|im_end|>\n"]);
}

#[test]
fn a_template_without_tools_gets_calls_as_text() {
    let setting = Setting::new(UNMARKED);
    let call = json!({"type": "function", "function": {"name": "f"}});
    let messages =
        vec![json!({"role": "user", "content": "u"}), json!({"role": "assistant", "content": "", "tool_calls": [call]})];
    let (example, _) = setting.encode(Content::Conversation { messages, tools: None });
    assert_eq!(setting.show(&example).1, ["{\"name\":\"f\"}<|im_end|>\n"]);
}

#[test]
fn parts_of_text_are_joined_where_the_template_takes_text() {
    let parts = json!([{"type": "text", "text": "the user "}, {"type": "text", "text": "says"}]);
    let messages =
        |content: Value| vec![json!({"role": "user", "content": content}), json!({"role": "assistant", "content": "things"})];
    let encoded = |template: &str, content: Value| {
        let setting = Setting::new(template);
        let (example, _) = setting.encode(Content::Conversation { messages: messages(content.clone()), tools: None });
        let ids = conversation_ids(&setting.tokenizer, &setting.template, &messages(content), None, false).unwrap();
        assert_eq!(example.ids, ids);
        setting.show(&example)
    };
    for template in [UNMARKED, FORGETFUL, CHATML] {
        assert_eq!(encoded(template, parts.clone()), encoded(template, json!("the user says")));
    }
    let looks = "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}\
        {% if part['type'] == 'text' %}<{{ part['text'] }}>{% endif %}{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(encoded(looks, parts).0, "[user]<the user ><says>[assistant]things");
}

#[test]
fn what_is_spelled_out_twice_is_as_once() {
    let setting = Setting::new(UNMARKED);
    let call = json!({"type": "function", "function": {"name": "f"}});
    let messages = [json!({"role": "assistant", "content": [{"type": "text", "text": "a"}], "tool_calls": [call]})];
    let once = spelled_out(&setting.template, &messages);
    assert_eq!(once, [json!({"role": "assistant", "content": "a{\"name\":\"f\"}"})]);
    assert_eq!(spelled_out(&setting.template, &once), once);
}
