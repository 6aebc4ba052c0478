//! A page as its reader sees it: headings, blocks of code with the text around them, and links.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A block of code.
pub struct Block {
    /// The heading above it.
    pub heading: String,
    /// The text between it and what is before it: the heading or another block.
    pub lead: String,
    /// The text after it, up to the next heading or block.
    pub follow: String,
    pub language: String,
    pub text: String,
    /// Where it begins.
    pub line: usize,
}

pub struct Page {
    /// Its path, from the root of the repository.
    pub name: String,
    pub source: String,
    pub blocks: Vec<Block>,
    pub headings: Vec<String>,
    pub links: Vec<String>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the pages whose blocks are tested: the README, and all of docs/.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("docs"))
        .expect("docs/")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    names.push("README.md".into());
    names.sort();
    names
}

impl Page {
    pub fn read(name: &str) -> Page {
        let source = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut blocks, mut headings, mut links) = (Vec::<Block>::new(), Vec::new(), Vec::new());
        let (mut heading, mut text, mut language) = (String::new(), String::new(), None);
        for (event, place) in Parser::new_ext(&source, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => {
                    follow(&mut blocks, &heading, &mut text);
                    text.clear();
                }
                Event::End(TagEnd::Heading(_)) => {
                    heading = std::mem::take(&mut text);
                    headings.push(heading.clone());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let lead = text.trim().to_owned();
                    follow(&mut blocks, &heading, &mut text);
                    let CodeBlockKind::Fenced(info) = kind else {
                        panic!("{name}: an indented block: {:?}", &source[place]);
                    };
                    language = Some(blocks.len());
                    blocks.push(Block {
                        heading: heading.clone(),
                        lead,
                        follow: String::new(),
                        language: info.into_string(),
                        text: String::new(),
                        line: source[..place.start].lines().count() + 1,
                    });
                }
                Event::End(TagEnd::CodeBlock) => language = None,
                Event::Text(part) | Event::Code(part) => match language {
                    Some(block) => blocks[block].text += &part,
                    None => text += &part,
                },
                Event::SoftBreak | Event::HardBreak | Event::End(TagEnd::Paragraph | TagEnd::Item) => text.push(' '),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    links.push(dest_url.into_string())
                }
                _ => {}
            }
        }
        follow(&mut blocks, &heading, &mut text);
        Page {
            name: name.into(),
            source,
            blocks,
            headings,
            links,
        }
    }

    /// The names by which links refer to its headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let anchor = |heading: &String| -> String {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
        };
        self.headings.iter().map(anchor).collect()
    }
}

/// Gives the text to the last block of the same heading, and empties it.
fn follow(blocks: &mut [Block], heading: &str, text: &mut String) {
    let text = std::mem::take(text);
    if let Some(block) = blocks.last_mut().filter(|block| block.heading == heading) {
        block.follow += text.trim();
    }
}
