//! Preferences by a judge: the same however it is asked, kept where it is cut off, and no question is asked twice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::folder::{Folder, Run};

const BEGINS: [&str; 4] = ["The cat sat on the", "The dog ran in the", "A bird sang in the", "The sun rose over the"];
/// A rubric short enough for a model of few positions.
const OPTIONS: &str = "--device cpu --rubric rubric.txt --max-new-tokens 4";

fn folder() -> Folder {
    let folder = Folder::pretrained();
    // The model has room for more than the questions are.
    folder.set("model/config.json", json!({"max_position_embeddings": 1024}));
    folder.write("rubric.txt", "Shorter.\n");
    folder.write_rows("prompts.jsonl", &(0..6).map(|at| json!({"prompt": BEGINS[at % 4]})).collect::<Vec<_>>());
    let pair = |at: usize| json!({"prompt": BEGINS[at % 4], "chosen": " mat.", "rejected": if at.is_multiple_of(2) { " park." } else { " mat. " }});
    folder.write_rows("pairs.jsonl", &(0..6).map(pair).collect::<Vec<_>>());
    folder
}

#[test]
fn a_model_judges_its_own_answers_the_same_however_they_are_batched() {
    let folder = folder();
    let command = format!("judge --model model --data prompts.jsonl {OPTIONS} --tie 0");
    let report: Value = serde_json::from_str(&folder.succeeds(&format!("{command} --answers 3 --out one.jsonl --json"))).unwrap();
    assert_eq!((&report["rows"], &report["pairs"], &report["too_long"]), (&json!(6), &json!(18), &json!(0)), "{report}");
    let rows = folder.lines("one.jsonl");
    assert_eq!(report["written"], json!(rows.len()));
    assert!(rows.len() > 2 && rows.iter().all(|row| row["preference"].as_f64().unwrap() > 0.5), "{rows:?}");
    folder.succeeds(&format!("{command} --answers 3 --out other.jsonl --batch-size 1 --together 2"));
    let texts = |name: &str| {
        folder
            .lines(name)
            .iter()
            .map(|row| (row["prompt"].clone(), row["chosen"].clone(), row["rejected"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("one.jsonl"), texts("other.jsonl"));
    folder.succeeds(&format!("{command} --answers 3 --ranked --out ranked.jsonl"));
    let ranked = folder.lines("ranked.jsonl");
    for (row, pair) in ranked.iter().zip(&rows) {
        assert_eq!(row["answers"][0], pair["chosen"]);
    }
    // Others learn from what comes of it.
    for rows in ["one", "ranked"] {
        let reward = format!("reward --model model --data {rows}.jsonl --steps 2 --validation 0 --device cpu --out {rows}");
        folder.succeeds(&reward);
    }
    folder.fails(&format!("{command} --answers 3 --out one.jsonl"), &["one.jsonl is there already"]);
    folder.fails(&format!("{command} --out prompts.jsonl --overwrite"), &["prompts.jsonl is read, and --out would replace it"]);
    // Another margin asks nothing again.
    let asked = folder.read("one.jsonl.asked");
    folder.succeeds(&format!("{command} --answers 3 --out one.jsonl --resume").replace("--tie 0", "--tie 0.49"));
    assert!(folder.lines("one.jsonl").len() < rows.len() && folder.read("one.jsonl.asked") == asked);
}

#[test]
fn a_judge_is_held_against_rows_that_were_judged() {
    let folder = folder();
    let report = folder.succeeds(&format!("judge --model model --data pairs.jsonl {OPTIONS} --out judged.jsonl --json"));
    let report: Value = serde_json::from_str(&report).unwrap();
    // Every second pair is two answers that are the same but for blanks.
    assert_eq!((&report["pairs"], report["ties"].as_f64() >= Some(0.5)), (&json!(6), true), "{report}");
    let rows = folder.lines("judged.jsonl");
    match report["agreement"].as_f64() {
        None => assert!(rows.is_empty()),
        Some(share) => {
            let same = rows.iter().filter(|row| row["chosen"] == " mat.").count();
            assert_eq!(share, same as f64 / rows.len() as f64);
        }
    }
    let chat = json!([{"role": "user", "content": "Hi"}]);
    let said = |text: &str| json!([{"role": "assistant", "content": text}]);
    folder.write_rows("chat.jsonl", &[json!({"prompt": chat, "chosen": said("The cat."), "rejected": said("The dog ran.")})]);
    folder.succeeds(&format!("judge --model model --data chat.jsonl {OPTIONS} --tie 0 --out chats.jsonl"));
    let rows = folder.lines("chats.jsonl");
    assert_eq!((&rows[0]["prompt"], rows[0]["chosen"][0]["role"].as_str()), (&chat, Some("assistant")));

    folder.write_rows("long.jsonl", &[json!({"prompt": "the ".repeat(1100), "chosen": "a", "rejected": "b"})]);
    let report = folder.succeeds(&format!("judge --model model --data long.jsonl {OPTIONS} --out none.jsonl --json"));
    assert!(report.contains("\"too_long\": 1") && folder.lines("none.jsonl").is_empty(), "{report}");
}

#[test]
fn killed_it_goes_on_and_comes_to_the_same() {
    let folder = folder();
    let command = format!("judge --model model --data prompts.jsonl {OPTIONS} --answers 4 --batch-size 2");
    folder.succeeds(&format!("{command} --out whole.jsonl"));
    for pause in [60, 120, 200] {
        let mut child = folder.start(&format!("{command} --out killed.jsonl --resume"));
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        if folder.path("killed.jsonl").exists() {
            break;
        }
    }
    if !folder.path("killed.jsonl").exists() {
        if folder.path("killed.jsonl.asked").exists() {
            folder.fails(&format!("{command} --out killed.jsonl"), &["killed.jsonl.asked", "--resume goes on"]);
            let other = command.replace("--answers 4", "--answers 3");
            folder.fails(&format!("{other} --out killed.jsonl --resume"), &["began with answers 4, and now it is 3"]);
            let file = std::fs::File::open(folder.path("killed.jsonl.asked")).unwrap();
            file.lock().unwrap();
            folder.fails(&format!("{command} --out killed.jsonl --resume"), &["another command is writing killed.jsonl.asked"]);
            drop(file);
        }
        folder.succeeds(&format!("{command} --out killed.jsonl --resume"));
    }
    assert!(folder.read("killed.jsonl") == folder.read("whole.jsonl"));
}

/// A judge behind an address: says what `reply` says to each request, by its number and its question; what it was asked.
fn serve(reply: impl Fn(usize, &str) -> (u16, String) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (format!("http://{}/v1", listener.local_addr().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let kept = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &reply, &kept);
        }
    });
    (address, asked)
}

fn answer(mut stream: TcpStream, reply: &impl Fn(usize, &str) -> (u16, String), kept: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(number) = line.to_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let question = body["messages"][0]["content"].as_str().unwrap().to_string();
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.push(format!("{head}{question}"));
        kept.len() - 1
    };
    let (status, text) = reply(number, &question);
    let body = match status {
        200 => json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
        _ => json!({"error": {"message": text}}),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} Said\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

/// Prefers the shorter answer.
fn shorter(question: &str) -> (u16, String) {
    let part =
        |name: &str, end: &str| question.split_once(name).and_then(|(_, rest)| rest.split_once(end)).unwrap().0.trim().len();
    let (one, other) = (part("[Answer A]", "[Answer B]"), part("[Answer B]", "Which"));
    (200, if one < other { "It is the [[A]]" } else { "B" }.into())
}

fn judged(folder: &Folder, address: &str, rest: &str) -> Run {
    let command =
        format!("judge --judge-url {address} --judge-name judge --data long.jsonl --out out.jsonl --judge-together 1 {rest}");
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = folder.command(&words).env("WGTUNE_JUDGE_KEY", "secret").output();
    Run::new(output.unwrap())
}

fn two_pairs() -> Folder {
    let folder = Folder::new();
    let row = |prompt: &str| json!({"prompt": prompt, "chosen": "Four and no more.", "rejected": "Four."});
    folder.write_rows("long.jsonl", &[row("2 and 2?"), row("1 and 3?")]);
    folder
}

#[test]
fn a_judge_behind_an_address_is_asked_again_where_it_fails_for_the_time_being() {
    let folder = two_pairs();
    let (address, asked) = serve(|number, question| match number {
        0 => (429, "slowly".into()),
        1 => (503, "busy".into()),
        _ => shorter(question),
    });
    let run = judged(&folder, &address, "--json");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["usage"], json!({"requests": 6, "prompt_tokens": 28, "completion_tokens": 4}));
    assert_eq!((&report["agreement"], &report["ties"], &report["position_bias"]), (&json!(0.0), &json!(0.0), &json!(0.0)));
    assert!(folder.lines("out.jsonl").iter().all(|row| row["chosen"] == "Four." && row["preference"] == 1.0));
    assert!(asked.lock().unwrap().iter().all(|asked| asked.to_lowercase().contains("authorization: bearer secret")));
    assert!(!run.stderr.contains("secret") && !run.stdout.contains("secret"));
}

#[test]
fn a_judge_that_fails_or_says_nothing_loses_nothing_that_was_said() {
    let folder = two_pairs();
    // It fails for good at the third question.
    let (address, _) = serve(|number, question| if number < 2 { shorter(question) } else { (500, "broken".into()) });
    judged(&folder, &address, "--judge-retries 1").failed(&["status 500, \"broken\", after 2 requests"]);
    assert!(folder.path("out.jsonl.asked").exists() && !folder.path("out.jsonl").exists());
    // Another address is another judge.
    let (other, asked) = serve(|_, question| shorter(question));
    judged(&folder, &other, "--resume").failed(&["out.jsonl.asked began with judge"]);
    assert!(asked.lock().unwrap().is_empty());

    // What is not asked again: a budget of three leaves one question.
    let (address, asked) = serve(|_, question| shorter(question));
    judged(&folder, &address, "--overwrite --judge-budget 3").failed(&["--judge-budget allows no more than 3 requests"]);
    let run = judged(&folder, &address, "--resume --json");
    assert_eq!((run.code, asked.lock().unwrap().len()), (Some(0), 4), "{}", run.stderr);

    let (address, _) = serve(|_, _| (200, "I like both".into()));
    let run = judged(&folder, &address, "--overwrite --json");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["unreadable"], &report["ties"], &report["written"]), (&json!(2), &json!(0.0), &json!(0)));
    let (address, _) = serve(|_, _| (401, "no such key".into()));
    judged(&folder, &address, "--overwrite").failed(&["status 401, \"no such key\""]);
    // Half a pair is none, and a question that is refused ends nothing.
    let (address, _) = serve(|number, _| if number.is_multiple_of(2) { (200, "A".into()) } else { (400, "too long".into()) });
    let run = judged(&folder, &address, "--overwrite --json");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["unreadable"], &report["written"]), (&json!(2), &json!(0)), "{}", run.stderr);
    // It is asked again, and what was answered is not.
    let (address, asked) =
        serve(|number, _| if number == 1 || number == 3 { (400, "too long".into()) } else { (200, "A".into()) });
    judged(&folder, &address, "--overwrite --json");
    assert_eq!((judged(&folder, &address, "--resume").code, asked.lock().unwrap().len()), (Some(0), 6));
    // A judge that refuses all is wrongly asked.
    let (address, asked) = serve(|number, question| if number < 4 { (400, "no such model".into()) } else { shorter(question) });
    judged(&folder, &address, "--overwrite").failed(&["\"no such model\", to each of the first 4 questions"]);
    let run = judged(&folder, &address, "--resume");
    assert_eq!((run.code, asked.lock().unwrap().len(), folder.lines("out.jsonl").len()), (Some(0), 8, 2), "{}", run.stderr);
    // What always says A says nothing.
    let (address, _) = serve(|_, _| (200, "A".into()));
    let run = judged(&folder, &address, "--overwrite --json");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["position_bias"], &report["written"]), (&json!(1.0), &json!(0)));
}

#[test]
fn answers_are_criticised_and_revised_by_principles() {
    let folder = two_pairs();
    folder.write("principles.txt", "# What answers keep to.\n\nBe brief.\n");
    let (address, asked) = serve(|_, question| match question.contains("[Critique]") {
        true if question.contains("1 and 3?") => (200, "Four and no more.".into()),
        true => (200, "<think>Two and two …</think> 4 ".into()),
        false => (200, "<think>Hm.</think>\nToo long.".into()),
    });
    let run = judged(&folder, &address, "--constitution principles.txt --json");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["unchanged"], &report["written"]), (&json!(1), &json!(1)));
    let expected = json!({
        "prompt": "2 and 2?", "chosen": "4", "rejected": "Four and no more.", "principle": "Be brief.", "critique": "Too long.",
    });
    assert_eq!(folder.lines("out.jsonl"), [expected]);
    assert!(asked.lock().unwrap().iter().filter(|asked| asked.contains("[Critique]\nToo long.\n")).count() == 2);

    // A model of its own does both too.
    let folder = self::folder();
    folder.write("principles.txt", "Be brief.\n");
    let command = "judge --model model --data prompts.jsonl --constitution principles.txt --max-new-tokens 6 --device cpu";
    let report: Value = serde_json::from_str(&folder.succeeds(&format!("{command} --out one.jsonl --json"))).unwrap();
    assert!(report["cut"].as_u64().unwrap() > 0, "{report}");
    folder.succeeds(&format!("{command} --out other.jsonl --batch-size 1"));
    assert!(folder.read("one.jsonl") == folder.read("other.jsonl"));
    folder.write("principles.txt", "# None.\n");
    folder.fails(&format!("{command} --out none.jsonl"), &["principles.txt has no principles"]);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let folder = folder();
    folder.fails("judge --data prompts.jsonl --out a.jsonl", &["nobody judges", "--model", "--judge-url"]);
    folder.fails("judge --judge-url http://localhost:1/v1 --judge-name x --data prompts.jsonl --out a.jsonl", &["--policy"]);
    folder.fails(
        "judge --judge-url http://me:secret@localhost:1/v1 --judge-name x --data pairs.jsonl --out a.jsonl",
        &["a name or a password"],
    );
    folder.fails("judge --judge-url localhost --judge-name x --data pairs.jsonl --out a.jsonl", &["begins with http://"]);
    folder.fails("judge --judge-url http://localhost:1/v1 --data pairs.jsonl --out a.jsonl", &["--judge-name"]);
    for (stray, of) in [("--judge-budget 3", "--model"), ("--answers 3", "--constitution"), ("--tie 0.1", "--constitution")] {
        let command = "judge --model model --data prompts.jsonl --out a.jsonl --constitution principles.txt";
        folder.fails(&format!("{command} {stray}"), &[stray.split(' ').next().unwrap(), of, "cannot be used with"]);
    }
    folder.fails(
        "judge --judge-url http://localhost:1/v1 --judge-name x --data pairs.jsonl --out a.jsonl --batch-size 2",
        &["--batch-size"],
    );
    folder.fails("judge --model model --data text.txt --out a.jsonl --device cpu", &["text.txt", "expected prompts"]);
    folder.fails("judge --model none --data pairs.jsonl --out a.jsonl", &["none"]);
    assert!(!folder.path("a.jsonl").exists() && !folder.path("a.jsonl.asked").exists());
}
