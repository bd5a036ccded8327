//! Mutations that know bytes, JSON and Jinja.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{corpus_folder, jinja};

/// The seeds of a target, in the order of their names.
pub struct Corpus {
    pub seeds: Vec<Vec<u8>>,
}

/// One change, drawn from these numbers.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    kind: u8,
    place: u64,
    length: u64,
    choice: u64,
}

impl Arbitrary for Mutation {
    type Parameters = ();
    type Strategy = BoxedStrategy<Mutation>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Mutation> {
        let numbers = (any::<u8>(), any::<u64>(), any::<u64>(), any::<u64>());
        numbers.prop_map(|(kind, place, length, choice)| Mutation { kind, place, length, choice }).boxed()
    }
}

/// Inputs grow no longer than this.
const LONGEST: usize = 1 << 16;

impl Corpus {
    pub fn open(target: &str) -> Corpus {
        let folder = corpus_folder().join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} holds no seed", folder.display());
        Corpus { seeds: files.iter().map(|file| fs::read(file).unwrap()).collect() }
    }

    /// A seed after these changes.
    pub fn input(&self, seed: usize, mutations: &[Mutation]) -> Vec<u8> {
        let mut input = self.seeds[seed].clone();
        for mutation in mutations {
            let is_template = input.windows(2).any(|pair| matches!(pair, b"{{" | b"{%"));
            // Most changes are to values or statements, where the input has any: bytes seldom leave it whole.
            let changed = match mutation.kind % 4 {
                0 => None,
                1 if is_template => Some(mutation.fragment(&input)),
                _ => mutation.value(&input).or_else(|| is_template.then(|| mutation.fragment(&input))),
            };
            let changed = changed.unwrap_or_else(|| mutation.bytes(&input, self));
            input = changed;
            input.truncate(LONGEST);
        }
        input
    }
}

impl Mutation {
    fn at(&self, length: usize) -> usize {
        (self.place % (length as u64 + 1)) as usize
    }

    /// A range, mostly a short one.
    fn range(&self, length: usize) -> std::ops::Range<usize> {
        let start = self.at(length);
        let longest = if self.length.is_multiple_of(8) { length } else { 16 };
        start..(start + (self.length >> 8) as usize % (longest + 1)).min(length)
    }

    fn bytes(&self, input: &[u8], corpus: &Corpus) -> Vec<u8> {
        let range = self.range(input.len());
        let (before, part, after) = (&input[..range.start], &input[range.clone()], &input[range.end..]);
        match self.choice % 10 {
            0 => before.to_vec(),
            1 => [before, after].concat(),
            2 => [before, &part.repeat(1 + (self.choice >> 8) as usize % 300), after].concat(),
            3 => {
                let other = &corpus.seeds[(self.choice >> 8) as usize % corpus.seeds.len()];
                let spliced = Mutation { place: self.length, length: self.place, ..*self }.range(other.len());
                [before, &other[spliced], after].concat()
            }
            4 => {
                let flipped: Vec<u8> = part.iter().map(|byte| byte ^ (1 << ((self.choice >> 8) % 8))).collect();
                [before, &flipped, after].concat()
            }
            5 => self.number(input),
            6 => {
                let depth = [1, 10, 127, 130, 5000][(self.choice >> 8) as usize % 5];
                let (open, close) =
                    [("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("{% if x %}", "{% endif %}")][self.place as usize % 4];
                [before, open.repeat(depth).as_bytes(), part, close.repeat(depth).as_bytes(), after].concat()
            }
            _ => {
                let inserted = STRANGE[(self.choice >> 8) as usize % STRANGE.len()];
                [before, inserted.as_bytes(), after].concat()
            }
        }
    }

    /// Puts an extreme in the place of a number.
    fn number(&self, input: &[u8]) -> Vec<u8> {
        let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let start = (self.at(input.len())..input.len()).find(|&place| is_part(input[place])).unwrap_or(input.len());
        let end = start + input[start..].iter().take_while(|byte| is_part(**byte)).count();
        let extreme = EXTREMES[(self.choice >> 8) as usize % EXTREMES.len()];
        [&input[..start], extreme.as_bytes(), &input[end..]].concat()
    }

    /// Changes a value of the JSON that the input is, or has on a line or in a safetensors header.
    fn value(&self, input: &[u8]) -> Option<Vec<u8>> {
        if let Ok(value) = serde_json::from_slice::<Value>(input) {
            return Some(self.json(value).to_string().into_bytes());
        }
        if let Some((length, rest)) = input.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length).min(1 << 32) as usize;
            if let Some((header, data)) = rest.split_at_checked(length)
                && let Ok(value) = serde_json::from_slice::<Value>(header)
            {
                let header = self.json(value).to_string();
                return Some([&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat());
            }
        }
        let mut lines: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let line = self.choice as usize % lines.len();
        let value = serde_json::from_slice::<Value>(&lines[line]).ok()?;
        lines[line] = self.json(value).to_string().into_bytes();
        Some(lines.join(&b'\n'))
    }

    fn json(&self, mut value: Value) -> Value {
        let count = count(&value);
        let place = (self.place % count as u64) as usize;
        let other = node(&mut value, &mut ((self.length % count as u64) as usize)).cloned().unwrap_or_default();
        let Some(node) = node(&mut value, &mut place.clone()) else { return value };
        match (self.choice % 8, &mut *node) {
            (0, Value::Object(map)) if !map.is_empty() => {
                let key = map.keys().nth(self.length as usize % map.len()).cloned().unwrap_or_default();
                map.remove(&key);
            }
            (1, Value::Object(map)) if map.len() > 1 => {
                let keys: Vec<String> = map.keys().cloned().collect();
                let (one, two) = (&keys[self.length as usize % keys.len()], &keys[(self.length >> 32) as usize % keys.len()]);
                let (first, second) = (map[one].clone(), map[two].clone());
                map.insert(one.clone(), second);
                map.insert(two.clone(), first);
            }
            (0, Value::Array(list)) if !list.is_empty() => drop(list.remove(self.length as usize % list.len())),
            (1, Value::Array(list)) => {
                list.extend(list.clone().iter().cycle().take(list.len() * 30).cloned().collect::<Vec<_>>())
            }
            (0 | 1, Value::String(text)) => *text = text.repeat(40),
            (2, node) => *node = other,
            (3, node) => {
                for _ in 0..[1, 10, 126, 130][self.length as usize % 4] {
                    *node = if self.choice & 256 == 0 { json!([node.take()]) } else { json!({"a": node.take()}) };
                }
            }
            (4, node) => *node = STRANGE[self.length as usize % STRANGE.len()].into(),
            (5, node) => *node = [json!(null), json!(true), json!([]), json!({}), json!("")][self.length as usize % 5].clone(),
            (_, node) => {
                let extreme = EXTREMES[self.length as usize % EXTREMES.len()];
                *node = serde_json::from_str(extreme).unwrap_or_else(|_| extreme.into());
            }
        }
        value
    }

    /// Puts a piece of a template somewhere between its tags.
    fn fragment(&self, input: &[u8]) -> Vec<u8> {
        let starts = (0..input.len()).filter(|&place| matches!(input[place..], [b'{', b'{' | b'%', ..])).collect::<Vec<_>>();
        let place = starts.get(self.place as usize % (starts.len() + 1)).copied().unwrap_or(input.len());
        let fragment = jinja::statements(&mut jinja::Draw(self.choice), 3);
        [&input[..place], fragment.as_bytes(), &input[place..]].concat()
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at this place, in the order in which they are written.
fn node<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|item| node(item, place)),
        Value::Object(map) => map.values_mut().find_map(|item| node(item, place)),
        _ => None,
    }
}

const EXTREMES: [&str; 22] = [
    "0",
    "-1",
    "1",
    "2",
    "0.5",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e308",
    "1e-308",
    "NaN",
    "-0.0",
    "1e999",
];

const STRANGE: [&str; 26] = [
    "",
    "\0",
    "\u{FEFF}",
    "\u{FFFD}",
    "\u{10FFFF}",
    "\u{F0000}",
    "\u{301}",
    "\r\n",
    "\t",
    "../../etc/passwd",
    "(a+)+$",
    "(?=(a*)*)b",
    "a{1000}{1000}",
    "\\p{L}+|\\s+(?!\\S)",
    "%Y%",
    "true",
    "null",
    "[1, 2]",
    "{\"a\": 1}",
    ",",
    "\"",
    "{{ x }}",
    "{% generation %}",
    "{% endgeneration %}",
    "<|endoftext|>",
    "\u{130}\u{df}\u{fb01}",
];
