//! Reads `proto_notes.md`: the blocks of its messages and its tables. It knows no message and
//! checks nothing but that it understands what it reads; `wire` and `session` compare.
#![allow(dead_code, reason = "each binary uses a part of it")]
#![allow(unreachable_pub, reason = "a module of many binaries, public in none")]

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We do.
    Frontend,
    /// The server does.
    Backend,
}

/// A message: `### title (side, 'tag')`, its byte table and its hex line.
#[derive(Debug)]
pub struct Block {
    /// The name of the message, and what of it is shown after a comma.
    pub title: String,
    /// Who sends it.
    pub side: Side,
    /// The type byte; the StartupMessage has none.
    pub tag: Option<u8>,
    /// The lines between heading and table.
    pub head: Vec<String>,
    /// The byte table.
    pub rows: Vec<ByteRow>,
    /// The hex line, a group for each row.
    pub groups: Vec<Vec<u8>>,
}

/// A row of a byte table.
#[derive(Debug)]
pub struct ByteRow {
    /// Where the field begins.
    pub offset: usize,
    /// How many bytes it has.
    pub size: usize,
    /// Its type (manual: protocol-message-types).
    pub kind: String,
    /// What is in it.
    pub value: String,
}

impl Block {
    /// The whole message.
    pub fn bytes(&self) -> Vec<u8> {
        self.groups.concat()
    }
}

const NOTES: &str = include_str!("../../proto_notes.md");

/// Every message of the notes.
pub fn blocks() -> Vec<Block> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in NOTES.lines() {
        match line.strip_prefix("### ") {
            Some(heading) => sections.push((heading, Vec::new())),
            None if line.starts_with("## ") => sections.push(("", Vec::new())),
            None => sections.last_mut().into_iter().for_each(|(_, lines)| lines.push(line)),
        }
    }
    sections.iter().filter_map(|(heading, lines)| block_of(heading, lines)).collect()
}

/// The block of one message.
#[track_caller]
pub fn block(title: &str) -> Block {
    let found = blocks().into_iter().find(|block| block.title == title);
    found.unwrap_or_else(|| panic!("proto_notes.md has no block {title}"))
}

/// The cells of the table whose heading begins with `first`, in the section whose heading begins
/// with `section`.
pub fn table(section: &str, first: &str, columns: usize) -> Vec<Vec<String>> {
    let lines = NOTES.lines().skip_while(|line| !line.starts_with(section)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let heading = format!("| {first} |");
    let rows = lines.skip_while(|line| !line.starts_with(&heading)).skip(2);
    let rows: Vec<Vec<String>> = rows.map_while(|line| cells(line, columns)).collect();
    assert!(!rows.is_empty(), "proto_notes.md has no table of {first} in {section}");
    rows
}

fn block_of(heading: &str, lines: &[&str]) -> Option<Block> {
    let (title, rest) = heading.split_once(" (")?;
    let (side, tag) = rest.strip_suffix(')')?.split_once(", ")?;
    let side = match side {
        "F" => Side::Frontend,
        "B" => Side::Backend,
        _ => return None,
    };
    let tag = match tag.as_bytes() {
        [b'\'', tag, b'\''] => Some(*tag),
        b"no type byte" => None,
        _ => panic!("{title}: the heading names no type byte"),
    };
    let head = lines.iter().take_while(|line| !line.starts_with('|'));
    let table = lines.iter().filter(|line| line.starts_with('|')).skip(2);
    Some(Block {
        title: title.to_owned(),
        side,
        tag,
        head: head.map(|line| (*line).to_owned()).collect(),
        rows: table.map(|line| byte_row(title, line)).collect(),
        groups: hex_groups(title, lines),
    })
}

fn byte_row(title: &str, line: &str) -> ByteRow {
    let cells = cells(line, 4).unwrap_or_else(|| panic!("{title}: not a row of bytes: {line}"));
    let number = |cell: &String| cell.parse().unwrap_or_else(|_| panic!("{title}: {line}"));
    ByteRow {
        offset: number(&cells[0]),
        size: number(&cells[1]),
        kind: cells[2].clone(),
        value: cells[3].clone(),
    }
}

/// `hex (of what): 53 00000004`, over as many lines as it takes.
fn hex_groups(title: &str, lines: &[&str]) -> Vec<Vec<u8>> {
    let mut hex = lines.iter().skip_while(|line| !line.starts_with("hex (")).copied();
    let first = hex.next().and_then(|line| line.split_once("):")).map(|(_, groups)| groups);
    let first = first.unwrap_or_else(|| panic!("{title}: no hex line"));
    std::iter::once(first)
        .chain(hex.take_while(|line| line.starts_with("    ")))
        .flat_map(str::split_whitespace)
        .map(|group| bytes_of(title, group))
        .collect()
}

fn bytes_of(title: &str, hex: &str) -> Vec<u8> {
    let byte = |at: usize| hex.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let bytes = (0..hex.len()).step_by(2).map(byte);
    bytes.collect::<Option<_>>().unwrap_or_else(|| panic!("{title}: not hexadecimal: {hex}"))
}

/// The cells of a table row that has at least so many.
fn cells(line: &str, columns: usize) -> Option<Vec<String>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
    (cells.len() >= columns).then_some(cells)
}
