//! A file's footer: the tree of its fields, and where the columns of its row groups lie.

use std::ops::Range;

use super::bytes::Bytes;
use super::thrift::{self, Thrift};

/// How deep fields may lie in one another.
const DEPTH: usize = 32;

/// What the footer says.
#[derive(Debug)]
pub struct Schema {
    /// The columns as a table's reader sees them.
    pub fields: Vec<Field>,
    pub groups: Vec<RowGroup>,
}

/// A field, with the levels of [Dremel](https://research.google/pubs/pub36632/).
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub repetition: Repetition,
    /// The definition level from which it is there.
    pub definition_level: u32,
    /// The repetition level at which a list goes on with another of it.
    pub repetition_level: u32,
    /// The columns beneath it, at least one.
    pub leaves: Range<usize>,
    pub node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    Required,
    Optional,
    Repeated,
}

#[derive(Debug)]
pub enum Node {
    Leaf(Kind),
    Struct(Vec<Field>),
    /// A group that stands for its only field, as those around a list's elements do.
    Wrapped(Box<Field>),
    /// A repeated field of two, the first of them the key.
    Map(Box<Field>),
}

/// What the values of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Unsigned32,
    Unsigned64,
    Float,
    Double,
    Text,
    /// What JSON has no value for, by its name.
    Unsupported(String),
}

#[derive(Debug)]
pub struct RowGroup {
    pub rows: usize,
    /// One a leaf.
    pub chunks: Vec<Chunk>,
}

/// The pages of a column in a row group.
#[derive(Debug)]
pub struct Chunk {
    /// As Parquet numbers them.
    pub codec: i64,
    /// With nulls and empty lists.
    pub values: usize,
    /// Where in the file.
    pub bytes: Range<usize>,
}

/// Reads the footer of a whole file.
pub fn read(file: &[u8]) -> Result<Schema, String> {
    let magic = b"PAR1";
    if !file.starts_with(magic) {
        return Err("it does not begin with PAR1".into());
    }
    let rest = file.strip_suffix(magic).ok_or("it does not end with PAR1, as if it were cut off")?;
    let (rest, length) = rest.split_last_chunk().ok_or("it has no footer")?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).ok_or("its footer is longer than the file")?;
    let footer = thrift::read(&mut Bytes(&rest[start..])).map_err(|reason| format!("its footer: {reason}"))?;
    if footer.field(8).is_some() {
        return Err("it is encrypted".into());
    }
    let mut elements = footer.list(2).iter();
    let root = elements.next().ok_or("its footer has no schema")?;
    let mut reader = Reader { elements, leaves: 0 };
    let fields = reader.children(root, (0, 0), DEPTH)?;
    let groups = footer.list(4).iter().map(|group| row_group(group, reader.leaves)).collect::<Result<_, _>>()?;
    Ok(Schema { fields, groups })
}

/// Elements lie one after the other, each before its children.
struct Reader<'a> {
    elements: std::slice::Iter<'a, Thrift<'a>>,
    leaves: usize,
}

impl Reader<'_> {
    fn children(&mut self, group: &Thrift, levels: (u32, u32), depth: usize) -> Result<Vec<Field>, String> {
        let count = group.size(5, "number of children")?;
        let depth = depth.checked_sub(1).ok_or("its fields are nested too deeply")?;
        // Grown one by one: a false count meets the end of the elements.
        let mut fields = Vec::new();
        for _ in 0..count {
            fields.push(self.field(levels, depth)?);
        }
        Ok(fields)
    }

    fn field(&mut self, (mut definition, mut repeated): (u32, u32), depth: usize) -> Result<Field, String> {
        let element = self.elements.next().ok_or("its schema is cut off")?;
        let name = element.text(4).ok_or("its schema has a field without a name")?.to_string();
        let repetition = match element.int(3) {
            Some(1) => Repetition::Optional,
            Some(2) => Repetition::Repeated,
            _ => Repetition::Required,
        };
        definition += u32::from(repetition != Repetition::Required);
        repeated += u32::from(repetition == Repetition::Repeated);
        let first = self.leaves;
        let node = if element.int(5).unwrap_or(0) == 0 {
            self.leaves += 1;
            Node::Leaf(kind(element))
        } else {
            group(element, self.children(element, (definition, repeated), depth)?)
        };
        let leaves = first..self.leaves;
        Ok(Field { name, repetition, definition_level: definition, repetition_level: repeated, leaves, node })
    }
}

/// <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#nested-types>
fn group(element: &Thrift, mut children: Vec<Field>) -> Node {
    let annotated = |converted, logical| {
        element.int(6) == Some(converted) || element.field(10).is_some_and(|kind| kind.field(logical).is_some())
    };
    if children.len() != 1 || children[0].repetition != Repetition::Repeated {
        return Node::Struct(children);
    }
    let mut repeated = children.remove(0);
    let is_pair = matches!(&repeated.node, Node::Struct(fields) if fields.len() == 2);
    if is_pair && (annotated(1, 2) || annotated(2, 2)) {
        return Node::Map(Box::new(repeated));
    }
    if !annotated(3, 3) {
        return Node::Struct(vec![repeated]);
    }
    // Old writers repeat the element itself.
    let is_element = repeated.name == "array" || repeated.name == format!("{}_tuple", element.text(4).unwrap_or_default());
    repeated.node = match repeated.node {
        Node::Struct(mut fields) if fields.len() == 1 && !is_element => Node::Wrapped(Box::new(fields.remove(0))),
        node => node,
    };
    Node::Wrapped(Box::new(repeated))
}

fn kind(element: &Thrift) -> Kind {
    let logical = element.field(10);
    let is_logical = |id| logical.is_some_and(|kind| kind.field(id).is_some());
    if element.int(6) == Some(5) || is_logical(5) {
        return Kind::Unsupported("decimal numbers".into());
    }
    let unsigned = match logical.and_then(|kind| kind.field(10)) {
        Some(integer) => integer.bool(2) == Some(false),
        None => matches!(element.int(6), Some(11..=14)),
    };
    match element.int(1) {
        Some(0) => Kind::Bool,
        Some(1) if unsigned => Kind::Unsigned32,
        Some(1) => Kind::Int32,
        Some(2) if unsigned => Kind::Unsigned64,
        Some(2) => Kind::Int64,
        Some(3) => Kind::Unsupported("times of 96 bits".into()),
        Some(4) => Kind::Float,
        Some(5) => Kind::Double,
        Some(6) => Kind::Text,
        Some(7) => Kind::Unsupported("binary values of a fixed length".into()),
        other => Kind::Unsupported(format!("values of the unknown type {other:?}")),
    }
}

fn row_group(group: &Thrift, leaves: usize) -> Result<RowGroup, String> {
    let chunks: Vec<_> = group.list(1).iter().map(chunk).collect::<Result<_, String>>()?;
    if chunks.len() != leaves {
        return Err(format!("a row group of {} columns; expected {leaves}, as in its schema", chunks.len()));
    }
    Ok(RowGroup { rows: group.size(3, "number of rows")?, chunks })
}

fn chunk(chunk: &Thrift) -> Result<Chunk, String> {
    if chunk.text(1).is_some_and(|path| !path.is_empty()) {
        return Err("a column that lies in another file".into());
    }
    let metadata = chunk.field(3).ok_or("a column without metadata, as in an encrypted file")?;
    let data = metadata.size(9, "offset of a column's pages")?;
    let dictionary = metadata.int(11).and_then(|at| usize::try_from(at).ok()).filter(|at| *at > 0);
    let start = dictionary.map_or(data, |dictionary| dictionary.min(data));
    let end = start.saturating_add(metadata.size(7, "size of a column's pages")?);
    let codec = metadata.int(4).ok_or("a column without a codec")?;
    Ok(Chunk { codec, values: metadata.size(5, "number of values")?, bytes: start..end })
}
