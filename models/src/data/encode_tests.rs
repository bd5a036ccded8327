use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::data::rows::{DataFile, Format};
use crate::data::template::Template;
use crate::formats::chat_template::CHATML;

pub struct Setting {
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

impl Setting {
    pub fn new(template: &str) -> Setting {
        let texts = ["the user and the assistant say things to one another"; 3];
        Setting {
            tokenizer: Tokenizer::train(texts.into_iter(), 300).unwrap(),
            template: ChatTemplate::new(Path::new("t"), template, BTreeMap::new()).unwrap(),
        }
    }

    pub fn encoder(&self, max_length: usize) -> Encoder<'_> {
        Encoder {
            tokenizer: Some(&self.tokenizer),
            template: &self.template,
            vocab_size: 300,
            max_length,
            opening: &[],
            prefix: 0,
            split_text: false,
            last_turn_only: false,
        }
    }

    pub fn encode(&self, content: Content) -> (Example, Report) {
        let (mut examples, report) = encode(&self.encoder(1000), vec![content]).unwrap();
        (examples.remove(0), report)
    }

    /// The text of an example, and the runs of it that carry loss.
    pub fn show(&self, example: &Example) -> (String, Vec<String>) {
        let mut runs: Vec<Vec<u32>> = vec![Vec::new()];
        for (&id, &label) in example.ids.iter().zip(&example.labels) {
            match label {
                IGNORE => runs.push(Vec::new()),
                _ => runs.last_mut().unwrap().push(id),
            }
        }
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap();
        let runs = runs.iter().filter(|run| !run.is_empty());
        (decode(&example.ids), runs.map(|run| decode(run)).collect())
    }
}

fn dataset(contents: Vec<Content>) -> Dataset {
    let file = DataFile { path: "d.jsonl".into(), format: Format::Text, rows: contents.len() };
    let row = |(index, content)| Row { file: 0, line: index + 1, content };
    Dataset { files: vec![file], rows: contents.into_iter().enumerate().map(row).collect() }
}

pub fn encode(encoder: &Encoder, contents: Vec<Content>) -> Result<(Vec<Example>, Report)> {
    let dataset = dataset(contents);
    encoder.encode(&dataset, &dataset.rows)
}

fn text(text: &str) -> Content {
    Content::Text(text.into())
}

fn completion(prompt: &str, completion: &str) -> Content {
    Content::Completion { prompt: prompt.into(), completion: completion.into() }
}

#[test]
fn texts_are_learnt_whole_and_ended_once() {
    let setting = Setting::new(CHATML);
    for given in ["the end", "the end<|endoftext|>"] {
        let (example, report) = setting.encode(text(given));
        let whole = "the end<|endoftext|>".to_string();
        assert_eq!(setting.show(&example), (whole.clone(), vec![whole]));
        assert_eq!(report.trained_tokens, example.ids.len() - 1);
    }
}

#[test]
fn a_completion_is_learnt_from_where_its_tokens_part_from_the_prompts() {
    let setting = Setting::new(CHATML);
    let learnt = |prompt, answer| setting.show(&setting.encode(completion(prompt, answer)).0).1;
    assert_eq!(learnt("say", " the end"), [" the end<|endoftext|>"]);
    // ` the` is one token, so a prompt that ends within it shares only what comes before.
    assert_eq!(learnt("say t", "he end"), ["say the end<|endoftext|>"].map(|s| s[3..].to_string()));
    assert_eq!(learnt("", "the end"), ["the end<|endoftext|>"]);
}

/// What a template makes of a field `x`, before a completion.
fn filled(template: &str, x: &str, completion: &str) -> Content {
    let fields = json!({"x": x});
    let prompt = Template::parse(template).unwrap().fill(fields.as_object().unwrap()).unwrap();
    Content::Filled { prompt, completion: completion.into() }
}

#[test]
fn virtual_tokens_stand_where_the_template_has_them_and_carry_no_loss() {
    let setting = Setting::new(CHATML);
    let opening: Vec<u32> = (300..304).collect();
    let encoder = Encoder { opening: &opening, ..setting.encoder(1000) };
    let ids = |text: &str| setting.tokenizer.encode(text, false).unwrap();
    let (examples, _) = encode(&encoder, vec![filled("<|virtual:1|>say {x}<|virtual:3|> to", "the", " the end")]).unwrap();
    let end = setting.tokenizer.eos_id().unwrap();
    assert_eq!(examples[0].ids, [&[300], &ids("say the")[..], &[301, 302, 303], &ids(" to the end"), &[end]].concat());
    let start = examples[0].ids.len() - ids(" the end").len() - 1;
    assert!(examples[0].labels[..start].iter().all(|label| *label == IGNORE));
    assert_eq!(examples[0].labels[start..], examples[0].ids[start..]);

    // A template that begins with all of them is what stands behind them anyway, cut or not.
    for max_length in [1000, 4 + ids("say the").len() + 1] {
        let encoder = Encoder { max_length, ..encoder };
        for template in ["<|virtual:4|>{x}", "<|virtual:4|>"] {
            let prompt = if template.ends_with("{x}") { "say the" } else { "" };
            let of_template = encode(&encoder, vec![filled(template, "say the", " end")]).unwrap();
            assert_eq!(of_template, encode(&encoder, vec![completion(prompt, " end")]).unwrap());
        }
    }
    // A method without virtual tokens makes plain texts.
    let plain = setting.encoder(1000);
    assert_eq!(
        encode(&plain, vec![filled("say {x}", "the", " end")]).unwrap(),
        encode(&plain, vec![completion("say the", " end")]).unwrap()
    );
}

#[test]
fn long_rows_are_cut_and_counted() {
    let setting = Setting::new(CHATML);
    // No merge was learnt of these letters: the prompt alone is longer than the first row.
    let rows = vec![completion("say", " the end"), completion(&"xyz".repeat(10), " the")];
    let length = setting.encode(rows[0].clone()).0.ids.len();
    let (examples, report) = encode(&setting.encoder(length), rows.clone()).unwrap();
    assert_eq!((examples.len(), report.rows, report.truncated, report.without_loss), (1, 2, 1, 1));
    assert_eq!(report.tokens, length);
    assert!(report.to_string().contains("1 left out for want of a token to learn (d.jsonl:2)"), "{report}");

    let (examples, report) = encode(&setting.encoder(length - 1), rows[..1].to_vec()).unwrap();
    assert_eq!((examples[0].ids.len(), report.truncated, report.without_loss), (length - 1, 1, 0));

    let message = encode(&setting.encoder(2), rows[1..].to_vec()).unwrap_err().to_string();
    assert!(message.starts_with("nothing to learn: 1 row, 0 examples"), "{message}");
    assert!(encode(&setting.encoder(1), rows).is_err());
}

#[test]
fn rows_without_a_token_to_learn_are_named_and_the_first_of_many() {
    let setting = Setting::new(CHATML);
    let masked = || Content::Ids { ids: vec![1, 2], labels: vec![IGNORE; 2] };
    let rows: Vec<Content> = (0..6).map(|row| if row == 1 { text("the end") } else { masked() }).collect();
    let (examples, report) = encode(&setting.encoder(10), rows).unwrap();
    assert_eq!((examples.len(), report.without_loss), (1, 5));
    let named = "5 left out for want of a token to learn (d.jsonl:1, d.jsonl:3, d.jsonl:4, …)";
    assert!(report.to_string().ends_with(named), "{report}");
    let none = dataset(vec![masked()]);
    let (examples, report) = setting.encoder(10).examples(&none, &none.rows).unwrap();
    assert_eq!((examples.len(), report.first_without_loss), (0, vec!["d.jsonl:1".to_string()]));
}

#[test]
fn given_ids_must_be_in_the_vocabulary() {
    let setting = Setting::new(CHATML);
    let ids = |last| Content::Ids { ids: vec![1, 299, last], labels: vec![IGNORE, 299, last] };
    let without = Encoder { tokenizer: None, ..setting.encoder(10) };
    let (examples, _) = encode(&without, vec![ids(5)]).unwrap();
    assert_eq!(examples[0].labels, [IGNORE, 299, 5]);
    let message = encode(&without, vec![ids(5), ids(300)]).unwrap_err().to_string();
    assert_eq!(message, "d.jsonl:2: token id 300; expected below the model's `vocab_size`, 300");
    let message = encode(&without, vec![text("t")]).unwrap_err().to_string();
    assert!(message.starts_with("d.jsonl:1: a row of text, and the model has no tokenizer"));
}

#[test]
fn a_refusal_names_the_row() {
    let setting = Setting::new("{{ raise_exception('no system message here') }}");
    let conversation = Content::Conversation { messages: vec![json!({"role": "assistant", "content": "hi"})], tools: None };
    let message = encode(&setting.encoder(10), vec![text("t"), conversation]).unwrap_err();
    assert_eq!(message.to_string(), "d.jsonl:2: line 1: no system message here");
}

proptest! {
    /// Of a split text every token but the first is predicted exactly once, in order.
    #[test]
    fn splitting_loses_and_repeats_nothing(words in "[a-z ]{1,200}", max_length in 2usize..20) {
        let setting = Setting::new(CHATML);
        let (whole, _) = setting.encode(text(&words));
        let encoder = Encoder { split_text: true, ..setting.encoder(max_length) };
        let (examples, report) = encode(&encoder, vec![text(&words)]).unwrap();
        prop_assert!(examples.iter().all(|example| example.ids.len() <= max_length));
        let predicted: Vec<u32> = examples.iter().flat_map(|example| example.labels[1..].to_vec()).collect();
        prop_assert_eq!(&predicted, &whole.labels[1..]);
        prop_assert_eq!(report.trained_tokens, whole.trained_tokens());
    }

    /// A label is its token or nothing, and what is learnt of a completion is its end.
    #[test]
    fn labels_agree_with_ids(prompt in "[a-z ü]{0,40}", answer in "[a-z ü]{1,40}", max_length in 2usize..60) {
        let setting = Setting::new(CHATML);
        let rows = vec![completion(&prompt, &answer), text("the end")];
        let (examples, _) = encode(&setting.encoder(max_length), rows).unwrap();
        for example in examples {
            prop_assert_eq!(example.ids.len(), example.labels.len());
            let start = example.labels.iter().position(|&label| label != IGNORE).unwrap();
            prop_assert_eq!(&example.labels[start..], &example.ids[start..]);
        }
    }
}
