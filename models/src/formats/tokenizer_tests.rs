use super::*;

const TEXT: &str = "the cat sat on the mat. the dog sat on the log. Grüße, 世界! 🦀\n  the end\n";

fn trained() -> Tokenizer {
    Tokenizer::train([TEXT, "the the the"].into_iter(), 300).unwrap()
}

#[test]
fn every_text_survives_the_way_there_and_back() {
    let tokenizer = trained();
    for text in [TEXT, "", " ", "never seen: Ωμέγα\t\u{1F980}\r\n", "<|im_end|> said he"] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn training_is_deterministic_and_learns_merges() {
    let json = || trained().inner.to_string(true).unwrap();
    assert_eq!(json(), json());
    let tokenizer = trained();
    let ids = tokenizer.encode(" the", false).unwrap();
    assert_eq!(tokenizer.pieces(&ids), ["Ġthe"]);
    assert!(tokenizer.vocab_size() <= 300);
    let message = Tokenizer::train([TEXT].into_iter(), 258).unwrap_err().to_string();
    assert!(message.contains("258") && message.contains("259"), "{message}");
}

#[test]
fn special_tokens_are_single_ids_and_ends() {
    let tokenizer = trained();
    assert_eq!(tokenizer.encode("<|endoftext|><|im_start|><|im_end|>", false).unwrap(), [0, 1, 2]);
    assert_eq!(tokenizer.eos_ids(), [0, 2]);
    assert_eq!(tokenizer.decode(&[0, 1, 2], true).unwrap(), "");
}

#[test]
fn a_saved_tokenizer_opens_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = trained();
    tokenizer.save(folder.path()).unwrap();
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [0, 2]}"#).unwrap();
    let opened = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(opened.encode(TEXT, true).unwrap(), tokenizer.encode(TEXT, true).unwrap());
    assert_eq!(opened.eos_ids(), tokenizer.eos_ids());
    assert_eq!(opened.special_tokens()["eos_token"], END_OF_TEXT);
    assert_eq!(opened.chat_template.as_deref(), Some(CHATML));
}

#[test]
fn a_stream_gives_the_whole_text_in_whole_characters() {
    let tokenizer = trained();
    let text = "the Ωμέγα \u{1F99E} end";
    let ids = tokenizer.encode(text, false).unwrap();
    let mut stream = tokenizer.stream(true);
    let parts: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(parts.iter().all(|part| !part.contains(char::REPLACEMENT_CHARACTER)));
    // Nothing of the lobster was in the training text: of its four bytes, three wait for the last.
    assert!(parts.iter().any(String::is_empty));
    assert_eq!(parts.concat(), text);
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn a_stream_cut_inside_a_character_says_so_at_its_end() {
    let tokenizer = trained();
    let lobster = tokenizer.encode("\u{1F99E}", false).unwrap();
    let mut stream = tokenizer.stream(true);
    assert_eq!(stream.push(lobster[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

#[test]
fn add_bos_token_has_the_last_word() {
    let with = |config: Value| {
        let folder = tempfile::tempdir().unwrap();
        trained().save(folder.path()).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::open(folder.path()).unwrap().encode("\n", true).unwrap()
    };
    let newline = with(json!({}))[0];
    let bos = json!({"bos_token": "<|im_start|>", "eos_token": {"content": "<|endoftext|>"},
        "add_bos_token": true, "add_eos_token": true});
    assert_eq!(with(bos), [1, newline, 0]);
    assert_eq!(with(json!({"bos_token": "<|im_start|>"})), [newline]);
}

#[test]
fn a_tokenizer_of_another_vocabulary_is_an_error_with_both_sizes() {
    let tokenizer = trained();
    let size = tokenizer.vocab_size();
    tokenizer.check_vocabulary(size).unwrap();
    let message = tokenizer.check_vocabulary(size - 1).unwrap_err().to_string();
    assert!(message.contains("another vocabulary"), "{message}");
    assert!(message.contains(&format!("largest id is {}", size - 1)), "{message}");
}

#[test]
fn a_missing_or_broken_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(Error::Io { .. })));
    std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(Error::Json { .. })));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(Tokenizer::open(folder.path()), Err(Error::Tokenizer { .. })));
}

/// A tokenizer.json of words with these keys changed.
fn words(changes: Value) -> Result<Tokenizer> {
    let mut json = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}});
    json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::open(folder.path())
}

#[test]
fn a_tokenizer_that_doubles_its_text_without_end_is_refused() {
    let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let normalizer = json!({"type": "Sequence", "normalizers": vec![doubling; 40]});
    let tokenizer = words(json!({"normalizer": normalizer})).unwrap();
    let message = tokenizer.encode("a", false).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: tokenizer: takes more than 256 MiB of memory"), "{message}");
    // What broke is not tried again.
    assert_eq!(tokenizer.encode("b", false).unwrap_err().to_string(), message);
}

#[test]
fn patterns_that_explode_or_backtrack_come_to_an_end() {
    let split = |pattern: &str| {
        words(json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}}))
    };
    for pattern in
        ["(a+)+$", "(?=(a+)+$)a", "(a|a)*(?!b)c", "((?=a)a{1000}){1000}", "a{1000}{1000}{1000}", "(((((((a*)*)*)*)*)*)*)*$"]
    {
        if let Ok(tokenizer) = split(pattern) {
            let text = format!("{}!", "a".repeat(3000));
            // An answer is all that is asked.
            let _ = tokenizer.encode(&text, false);
        }
    }
    assert!(split("(").is_err());
}

#[test]
fn an_odd_vocabulary_is_used_or_refused() {
    let model = |vocab: Value| json!({"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "?"}});
    let empty = words(model(json!({}))).unwrap();
    assert!(empty.encode("a", false).unwrap_err().to_string().contains("tokenizer.json: tokenizer: "));
    assert_eq!(empty.decode(&[u32::MAX], false).unwrap(), "");
    let far = words(model(json!({"a": u32::MAX, "?": 0}))).unwrap();
    assert!(far.check_vocabulary(1000).unwrap_err().to_string().contains("its largest id is 4294967295"));
    assert!(words(model(json!({"a": -1, "?": 1u64 << 32}))).is_err());
    let added: Vec<Value> = (0..100_000)
        .map(|id| {
            json!({"id": id + 2, "content": format!("<|{id}|>"), "special": id % 2 == 0,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let many = words(json!({"added_tokens": added})).unwrap();
    assert_eq!(many.encode("<|99999|>", false).unwrap(), [100_001]);
    let mut deep = json!({"type": "Lowercase"});
    (0..100).for_each(|_| deep = json!({"type": "Sequence", "normalizers": [deep.take()]}));
    assert!(words(json!({"normalizer": deep})).is_err());
}

#[test]
fn a_piece_whose_tree_would_overflow_a_stack_is_refused() {
    let model = |length: usize| {
        let vocab = json!([["<unk>", 0.0], ["a".repeat(length), -1.0]]);
        words(json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}}))
    };
    assert_eq!(model(1000).unwrap().encode(&"a".repeat(1000), false).unwrap(), [1]);
    let message = model(150_000).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: tokenizer: a piece of 150000 bytes; expected at most 1000"), "{message}");
}
