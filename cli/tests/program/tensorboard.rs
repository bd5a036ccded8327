//! The events of a run, read back by a reader that shares nothing with their writer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::evaluation::{UP_AND_DOWN, patterns};
use crate::folder::Folder;

/// An event: when, after which update, and its scalars.
#[derive(Debug)]
struct Event {
    wall_time: f64,
    step: u64,
    scalars: Vec<(String, f32)>,
}

/// What a protobuf field holds.
enum Field<'a> {
    Number(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

#[test]
fn the_events_are_the_metrics() {
    let folder = patterns();
    let before = now();
    folder.succeeds(&format!("{UP_AND_DOWN} --eval-every 3 --out out"));
    check(&folder, "out", before);
    folder.succeeds(&format!("{UP_AND_DOWN} --no-tensorboard --out without"));
    assert!(!folder.names("without").contains(&"tensorboard".to_string()));
}

#[test]
fn the_events_of_a_run_that_was_killed_have_no_doubles_and_no_gaps() {
    let folder = patterns();
    let command = format!("{UP_AND_DOWN} --save-every 5 --out out --resume").replace("--steps 31", "--steps 300");
    let before = now();
    for lines in [20, 60, 100] {
        let mut child = folder.start(&command);
        let begun = Instant::now();
        let seen = || std::fs::read_to_string(folder.path("out/metrics.jsonl")).map_or(0, |text| text.lines().count());
        while seen() < lines {
            assert!(begun.elapsed() < Duration::from_secs(60), "no step was made");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    folder.succeeds(&command);
    check(&folder, "out", before);
}

/// Panics unless the events say what the metrics say, in their order, and since then.
fn check(folder: &Folder, out: &str, since: f64) {
    let events = events(folder, out);
    let lines = folder.lines(&format!("{out}/metrics.jsonl"));
    assert_eq!(events.len(), lines.len());
    for (event, line) in events.iter().zip(&lines) {
        assert_eq!(Some(event.step), line["step"].as_u64());
        let names = ["loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second"];
        let expected = names.iter().filter_map(|name| Some((name.to_string(), line[name].as_f64()? as f32)));
        assert_eq!(event.scalars, expected.collect::<Vec<_>>(), "step {}", event.step);
    }
    let times: Vec<f64> = events.iter().map(|event| event.wall_time).collect();
    assert!(times.is_sorted() && times[0] >= since && times[times.len() - 1] <= now(), "{times:?}");
}

/// The events of the one file in a run's folder, but for the first, which says what the file is.
fn events(folder: &Folder, out: &str) -> Vec<Event> {
    let names = folder.names(&format!("{out}/tensorboard"));
    let [name] = &names[..] else { panic!("{names:?}") };
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let bytes = folder.read(&format!("{out}/tensorboard/{name}"));
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let data = &rest[12..12 + length];
        assert_eq!((sum(8), sum(12 + length)), (masked_sum(&rest[..8]), masked_sum(data)));
        if events.is_empty() {
            assert!(data.ends_with(b"\x1a\x0dbrain.Event:2"), "{data:?}");
        }
        events.push(event(data));
        rest = &rest[length + 16..];
    }
    events.split_off(1)
}

fn event(data: &[u8]) -> Event {
    let mut event = Event { wall_time: 0.0, step: 0, scalars: Vec::new() };
    for field in fields(data) {
        match field {
            (1, Field::Fixed(bytes)) => event.wall_time = f64::from_le_bytes(bytes.try_into().unwrap()),
            (2, Field::Number(step)) => event.step = step,
            (3, Field::Bytes(_)) => {}
            (5, Field::Bytes(summary)) => event.scalars = fields(summary).iter().map(scalar).collect(),
            (number, _) => panic!("field {number}"),
        }
    }
    event
}

fn scalar(value: &(u64, Field)) -> (String, f32) {
    let (1, Field::Bytes(value)) = value else { panic!("no value") };
    let fields = fields(value);
    let [(1, Field::Bytes(tag)), (2, Field::Fixed(number))] = &fields[..] else { panic!("no scalar") };
    (String::from_utf8(tag.to_vec()).unwrap(), f32::from_le_bytes((*number).try_into().unwrap()))
}

/// The fields of a protobuf message, with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes);
        let field = match key % 8 {
            0 => Field::Number(number(&mut bytes)),
            1 => Field::Fixed(bytes.split_off(..8).unwrap()),
            2 => {
                let length = number(&mut bytes) as usize;
                Field::Bytes(bytes.split_off(..length).unwrap())
            }
            5 => Field::Fixed(bytes.split_off(..4).unwrap()),
            kind => panic!("kind {kind}"),
        };
        fields.push((key / 8, field));
    }
    fields
}

fn number(bytes: &mut &[u8]) -> u64 {
    let length = 1 + bytes.iter().take_while(|byte| **byte >= 128).count();
    let digits = bytes.split_off(..length).unwrap();
    digits.iter().rev().fold(0, |number, digit| number * 128 + u64::from(digit % 128))
}

/// As TensorFlow masks the sum of RFC 3720, by the polynomial's bits, the highest first.
fn masked_sum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            sum = if sum >> 31 == 1 { sum << 1 ^ 0x1edc_6f41 } else { sum << 1 };
        }
    }
    (!sum.reverse_bits()).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
