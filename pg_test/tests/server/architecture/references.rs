//! A scan of Rust source text for the paths that it refers to. Not a parser: it knows comments, strings, inline modules,
//! `use` trees and paths, which is all that the rules need.

/// A module's path from the crate root, without `crate`.
pub type Module = Vec<String>;

/// A path that a file refers to, from the crate root.
#[derive(Clone, Debug)]
pub struct Reference {
    pub line: usize,
    /// Every segment, including those that are no module. `*` stands for a glob import.
    pub path: Module,
    /// The name that a `use` declaration gives it here; `*` for a glob import.
    pub name: Option<String>,
    pub is_reexport: bool,
    /// Whether it is inside a module `tests`.
    pub is_in_tests: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'s> {
    Word(&'s str),
    PathSeparator,
    Other(char),
}

/// Returns the references of a file that is this module and has these child modules.
pub fn references(text: &str, module: &[String], children: &[String]) -> Vec<Reference> {
    let code = blank_comments_and_strings(text);
    let mut scan = Scan {
        tokens: tokens(&code),
        at: 0,
        module: module.to_vec(),
        children,
        is_in_tests: false,
        found: Vec::new(),
    };
    scan.scan(0);
    scan.found
}

/// Returns the names of the items and macros that a file defines at any level.
pub fn definitions(text: &str) -> Vec<String> {
    let code = blank_comments_and_strings(text);
    let tokens = tokens(&code);
    let keywords = [
        "fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod",
    ];
    let defined = tokens
        .windows(3)
        .filter_map(|three| match (three[0].0, three[1].0, three[2].0) {
            (Token::Word("macro_rules"), Token::Other('!'), Token::Word(name)) => Some(format!("{name}!")),
            (Token::Word(keyword), Token::Word(name), _) if keywords.contains(&keyword) => Some(name.to_owned()),
            _ => None,
        });
    defined.collect()
}

struct Scan<'s> {
    tokens: Vec<(Token<'s>, usize)>,
    at: usize,
    /// The module at this point: that of the file, and inline modules in it.
    module: Module,
    children: &'s [String],
    is_in_tests: bool,
    found: Vec<Reference>,
}

impl Scan<'_> {
    fn token(&self, ahead: usize) -> Option<Token<'_>> {
        self.tokens.get(self.at + ahead).map(|token| token.0)
    }

    fn word(&self, ahead: usize) -> Option<String> {
        match self.token(ahead) {
            Some(Token::Word(word)) => Some(word.to_owned()),
            _ => None,
        }
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.1)
    }

    fn follows(&self, token: Token) -> bool {
        self.at > 0 && self.tokens[self.at - 1].0 == token
    }

    /// Scans up to the brace that closes this depth. `depth` counts inline modules only.
    fn scan(&mut self, depth: usize) {
        let mut braces = 0;
        while let Some(token) = self.token(0) {
            match token {
                Token::Other('{') => braces += 1,
                Token::Other('}') if braces == 0 && depth > 0 => return,
                Token::Other('}') => braces -= 1,
                Token::Word("mod") if self.token(2) == Some(Token::Other('{')) => {
                    let name = self.word(1).unwrap_or_default();
                    let was_in_tests = self.is_in_tests;
                    self.is_in_tests |= name == "tests";
                    self.module.push(name);
                    self.at += 3;
                    self.scan(depth + 1);
                    self.module.pop();
                    self.is_in_tests = was_in_tests;
                }
                Token::Word("use") => {
                    let is_reexport = self.follows(Token::Word("pub")) || self.follows(Token::Other(')'));
                    self.at += 1;
                    self.use_tree(&mut Vec::new(), is_reexport);
                    continue;
                }
                Token::Word(_) if self.starts_path() => {
                    self.path();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Whether a path starts here whose first segment is a keyword or a child module.
    fn starts_path(&self) -> bool {
        let first = self.word(0).unwrap_or_default();
        let is_root = ["crate", "self", "super"].contains(&first.as_str());
        // A child module's name is in scope in the file itself, not in an inline module of it.
        let is_child = self.children.contains(&first);
        (is_root || is_child)
            && self.token(1) == Some(Token::PathSeparator)
            && !self.follows(Token::PathSeparator)
            && !self.follows(Token::Other('.'))
            // As in `pub(in crate::roster)`.
            && !self.follows(Token::Word("in"))
    }

    /// Reads a path outside of a `use` declaration.
    fn path(&mut self) {
        let line = self.line();
        let mut segments = Vec::new();
        while let Some(word) = self.word(0) {
            segments.push(word);
            self.at += 1;
            if self.token(0) != Some(Token::PathSeparator) {
                break;
            }
            self.at += 1;
        }
        self.add(line, &segments, None, false);
    }

    /// Reads what follows `use`, or one branch in its braces.
    fn use_tree(&mut self, prefix: &mut Vec<String>, is_reexport: bool) {
        let (line, depth) = (self.line(), prefix.len());
        loop {
            match self.token(0) {
                Some(Token::Word("as")) => {
                    self.at += 1;
                    let alias = self.word(0);
                    self.at += 1;
                    self.add(line, prefix, alias, is_reexport);
                    break;
                }
                Some(Token::Word(word)) => prefix.push(word.to_owned()),
                Some(Token::Other('*')) => {
                    prefix.push("*".to_owned());
                    self.at += 1;
                    self.add(line, prefix, Some("*".to_owned()), is_reexport);
                    break;
                }
                Some(Token::Other('{')) => {
                    self.at += 1;
                    while !matches!(self.token(0), None | Some(Token::Other('}'))) {
                        self.use_tree(prefix, is_reexport);
                        if self.token(0) == Some(Token::Other(',')) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                Some(Token::PathSeparator) => {}
                _ => {
                    // `self` at the end names the module itself.
                    if depth > 0 && prefix.last().is_some_and(|last| last == "self") {
                        prefix.pop();
                    }
                    let name = prefix.last().cloned();
                    self.add(line, prefix, name, is_reexport);
                    break;
                }
            }
            self.at += 1;
        }
        prefix.truncate(depth);
    }

    /// Adds a path of this crate; other crates' are none of ours.
    fn add(&mut self, line: usize, segments: &[String], name: Option<String>, is_reexport: bool) {
        let mut path = match segments.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            Some(first) if self.children.iter().any(|child| child == first) => {
                let mut path = self.module.clone();
                path.push(first.to_owned());
                path
            }
            _ => return,
        };
        for (at, segment) in segments.iter().enumerate() {
            match segment.as_str() {
                "super" => {
                    path.pop();
                }
                "crate" | "self" => {}
                _ if at == 0 => {}
                _ => path.push(segment.clone()),
            }
        }
        self.found.push(Reference {
            line,
            path,
            name,
            is_reexport,
            is_in_tests: self.is_in_tests,
        });
    }
}

/// Splits code into words, path separators and other characters, each with its line.
fn tokens(code: &str) -> Vec<(Token<'_>, usize)> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if is_word(first) {
            tokens.push((Token::Word(token), line));
        } else if token == "::" {
            tokens.push((Token::PathSeparator, line));
        } else if !first.is_whitespace() {
            tokens.push((Token::Other(first), line));
        }
        line += usize::from(first == '\n');
        rest = after;
    }
    tokens
}

/// Replaces comments and the contents of strings and character literals with spaces, and keeps the lines.
fn blank_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = length_to_blank(rest, code.chars().next_back());
        let length = if blank == 0 { first.len_utf8() } else { blank };
        let (token, after) = rest.split_at(length);
        if blank == 0 {
            code.push(first);
        } else {
            code.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The length of the comment, string or character literal that starts here; 0 if none does.
fn length_to_blank(rest: &str, before: Option<char>) -> usize {
    let find = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        let (mut at, mut depth) = (2, 1);
        while depth > 0 && at < rest.len() {
            let opens = rest[at..].find("/*").map_or(usize::MAX, |found| at + found);
            let closes = rest[at..].find("*/").map_or(usize::MAX, |found| at + found);
            if opens < closes {
                (at, depth) = (opens + 2, depth + 1);
            } else {
                (at, depth) = (closes.saturating_add(2).min(rest.len()), depth - 1);
            }
        }
        return at;
    }
    if rest.starts_with('"') {
        return string_length(rest, '"');
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // Otherwise it is a lifetime.
        let mut chars = after.chars();
        let is_literal = match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        };
        return if is_literal { string_length(rest, '\'') } else { 0 };
    }
    // Raw strings: r"…", r#"…"#, br"…", cr"…".
    let starts_word = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    for prefix in ["r", "br", "cr"] {
        let Some(after) = rest.strip_prefix(prefix).filter(|_| starts_word) else {
            continue;
        };
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return find(prefix.len() + hashes + 1, &end);
        }
    }
    0
}

/// The length of a literal that starts with its quote and has escapes.
fn string_length(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
