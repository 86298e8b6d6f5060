//! The commands of a Markdown file: its fenced blocks, in order.

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the fence (`sh`, or nothing).
    pub language: String,
    /// Its text.
    pub text: String,
}

/// All fenced blocks of a document.
#[must_use]
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                open = Some(Block { language: language.trim().to_owned(), text: String::new() });
            }
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_order_with_their_language() {
        let found = blocks("a\n```sh\none\ntwo\n```\nb\n```\nthree\n```\n");
        let block =
            |language: &str, text: &str| Block { language: language.to_owned(), text: text.to_owned() };
        assert_eq!(found, [block("sh", "one\ntwo\n"), block("", "three\n")]);
    }
}
