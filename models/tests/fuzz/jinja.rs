//! Pieces of chat templates out of a grammar.

/// Numbers out of one: SplitMix64.
pub struct Draw(pub u64);

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % count as u64) as usize
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const NAMES: [&str; 9] = ["messages", "tools", "x", "y", "n.x", "loop", "m", "bos_token", "add_generation_prompt"];
const FILTERS: [&str; 36] = [
    "tojson",
    "trim",
    "upper",
    "length",
    "list",
    "join",
    "join(', ')",
    "replace('a', 'aa')",
    "first",
    "last",
    "int",
    "float",
    "string",
    "sort",
    "reverse",
    "unique",
    "batch(2)",
    "slice(3)",
    "items",
    "dictsort",
    "map('upper')",
    "map(attribute='role')",
    "sum",
    "min",
    "tojson(indent=4)",
    "default('d')",
    "selectattr('role')",
    "reject('none')",
    "groupby('role')",
    "indent(8)",
    "round(2)",
    "abs",
    "format(1)",
    "title",
    "escape",
    "pprint",
];
const TESTS: [&str; 10] =
    ["defined", "none", "string", "mapping", "iterable", "number", "odd", "divisibleby(0)", "sameas(x)", "in(y)"];
const METHODS: [&str; 16] = [
    "strip()",
    "split()",
    "split('a')",
    "rstrip('x')",
    "startswith('a')",
    "items()",
    "get('role')",
    "upper()",
    "replace('a', 'bb')",
    "join(['a'])",
    "splitlines()",
    "count('')",
    "find('a')",
    "title()",
    "format(1)",
    "keys()",
];

/// A few statements.
pub fn statements(draw: &mut Draw, depth: usize) -> String {
    (0..=draw.below(2)).map(|_| statement(draw, depth)).collect()
}

fn statement(draw: &mut Draw, depth: usize) -> String {
    let value = expression(draw, depth);
    if depth == 0 {
        return format!("{{{{ {value} }}}}");
    }
    let body = statements(draw, depth - 1);
    match draw.below(14) {
        0 => format!("{{% for m in {value} %}}{body}{{% endfor %}}"),
        1 => format!("{{% for m in {value} recursive %}}{{{{ loop(m) }}}}{body}{{% endfor %}}"),
        2 => format!("{{% if {value} %}}{body}{{% elif x %}}{body}{{% else %}}{{% endif %}}"),
        3 => format!("{{% set x = {value} %}}{body}"),
        4 => format!("{{% set n = namespace(x={value}) %}}{{% for m in messages %}}{{% set n.x = [n.x, n.x] %}}{{% endfor %}}"),
        5 => format!("{{% set y %}}{body}{{% endset %}}"),
        6 => format!("{{% macro f(m, x={value}) %}}{body}{{% endmacro %}}{{{{ f(1) ~ f(x=2) }}}}"),
        7 => format!("{{% call(m) f(x) %}}{body}{{% endcall %}}"),
        8 => format!("{{% filter {} %}}{body}{{% endfilter %}}", draw.of(&FILTERS)),
        9 => format!("{{%- generation -%}}{body}{{%- endgeneration -%}}"),
        10 => format!("{{% {} 'chat' %}}", draw.of(&["include", "extends", "import"])),
        11 => format!("{{% block a %}}{body}{{{{ super() }}}}{{% endblock %}}"),
        12 => format!("{{% with x = {value} %}}{body}{{% endwith %}}"),
        _ => format!("{{{{ {value} }}}}"),
    }
}

fn expression(draw: &mut Draw, depth: usize) -> String {
    if depth == 0 {
        return match draw.below(4) {
            0 => draw.of(&["0", "1", "-1", "1.5", "9999999999", "18446744073709551616", "none", "true"]).into(),
            1 => draw.of(&["''", "'a'", "'{}%s'", "'\\u0000'", "'Grüße'"]).into(),
            _ => draw.of(&NAMES).into(),
        };
    }
    let one = expression(draw, depth - 1);
    let two = expression(draw, depth - 1);
    match draw.below(16) {
        0 => format!("({one} {} {two})", draw.of(&["+", "-", "*", "/", "//", "%", "**", "~"])),
        1 => format!("({one} {} {two})", draw.of(&["==", "<", ">=", "in", "not in", "and", "or", "!="])),
        2..5 => format!("({one})|{}", draw.of(&FILTERS)),
        5 => format!("({one} is {})", draw.of(&TESTS)),
        6..8 => format!("({one}).{}", draw.of(&METHODS)),
        8 => format!("({one})[{two}]"),
        9 => format!("({one})[{}]", draw.of(&["1:", ":-1", "::-1", "::0", "::2", "-9999999999:", ":9999999999:3"])),
        10 => format!("[{one}, {two}]"),
        11 => format!("{{'role': {one}, 'x': {two}}}"),
        12 => format!("({one} if {two} else x)"),
        13 => format!("range({one}, 9, {two})"),
        14 => format!(
            "{}({one})",
            draw.of(&["raise_exception", "strftime_now", "namespace", "dict", "debug", "f", "caller", "loop.cycle"])
        ),
        _ => format!("not -{one}"),
    }
}
