//! The rooms of `src`: each uses only those below it, and no two modules of one room use each other in a circle.
//!
//! These tests read the source as text and need no server. `lib.rs` and `benches.rs` may use everything, and every room may
//! use the macros of the crate.
//!
//! In a room, `mod.rs` is a module like the others, named like the room. What it only declares or re-exports (`mod`,
//! `pub use`) is no use of a submodule, and a submodule that imports a re-export uses the module that defines it. So a
//! submodule may import what `mod.rs` itself defines, unless `mod.rs` also uses that submodule. Unit tests, in a module
//! `tests`, may use anything of their own room.

mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use references::{Module, Reference, definitions, references};

/// From the bottom to the top.
const ROOMS: [&str; 11] = [
    "rules", "pg", "settings", "roster", "store", "identity", "triggers", "session", "api", "launcher", "worker",
];

/// Files that belong to no room and may use all of them.
const EXEMPT: [&str; 2] = ["lib.rs", "benches.rs"];

/// Rust files by their path below `src`.
type Tree = BTreeMap<String, String>;

fn read_tree() -> Tree {
    fn add(tree: &mut Tree, root: &Path, dir: &Path) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(tree, root, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root)
                    .expect("a path below src")
                    .to_str()
                    .expect("UTF-8");
                tree.insert(name.to_owned(), fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut tree = Tree::new();
    add(&mut tree, &src, &src);
    tree
}

/// The module that a file is: `roster/beat.rs` is `roster::beat`, `roster/mod.rs` is `roster`, `lib.rs` is the root.
fn module_of(file: &str) -> Module {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Module = stem.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// A tree with the references of each file.
struct Source {
    files: BTreeMap<Module, (String, Vec<Reference>)>,
    definitions: BTreeMap<Module, Vec<String>>,
}

impl Source {
    fn new(tree: &Tree) -> Source {
        let modules: BTreeSet<Module> = tree.keys().map(|file| module_of(file)).collect();
        let files = tree.iter().map(|(file, text)| {
            let module = module_of(file);
            let children: Vec<String> = modules
                .iter()
                .filter(|child| child.len() == module.len() + 1 && child.starts_with(&module))
                .filter_map(|child| child.last().cloned())
                .collect();
            let found = references(text, &module, &children);
            (module, (file.clone(), found))
        });
        Source {
            files: files.collect(),
            definitions: tree
                .iter()
                .map(|(file, text)| (module_of(file), definitions(text)))
                .collect(),
        }
    }

    /// The files of rooms, with their references.
    fn in_rooms(&self) -> impl Iterator<Item = (&Module, &String, &Vec<Reference>)> {
        self.files
            .iter()
            .map(|(module, (file, found))| (module, file, found))
            .filter(|(_, file, _)| !EXEMPT.contains(&file.as_str()))
    }

    /// The module that defines what a path names, seen through re-exports and imports.
    fn definer(&self, path: &[String], depth: usize) -> Option<Module> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.files.contains_key(&path[..*length]))?;
        let module = &path[..length];
        let Some(name) = path.get(length).filter(|_| depth < 8) else {
            return Some(module.to_vec());
        };
        let imports = self.files[module].1.iter().filter(|reference| reference.name.is_some());
        let is_defined_here = self.definitions[module].contains(name);
        for import in imports.filter(|import| !import.is_in_tests && !is_defined_here) {
            if import.name.as_ref() == Some(name) {
                return self.definer(&import.path, depth + 1);
            }
            let Some((_, from)) = import.path.split_last().filter(|(last, _)| *last == "*") else {
                continue;
            };
            if self.definitions.get(from).is_some_and(|names| names.contains(name)) {
                return Some(from.to_vec());
            }
        }
        Some(module.to_vec())
    }
}

fn room(module: &[String]) -> Option<usize> {
    ROOMS
        .iter()
        .position(|room| module.first().is_some_and(|first| first == room))
}

/// Uses of a room by one below it, and of what belongs to no room.
fn upward_uses(source: &Source) -> Vec<String> {
    let mut violations = BTreeSet::new();
    let is_macro = |name: &String| {
        source
            .definitions
            .values()
            .flatten()
            .any(|defined| *defined == format!("{name}!"))
    };
    for (module, file, found) in source.in_rooms() {
        let Some(own) = room(module) else {
            violations.insert(format!("src/{file} belongs to no room"));
            continue;
        };
        for reference in found {
            let is_allowed = match room(&reference.path) {
                Some(used) => used <= own,
                None => reference.path.len() == 1 && is_macro(&reference.path[0]),
            };
            if !is_allowed {
                let used = reference.path.first().map_or("the crate root", String::as_str);
                violations.insert(format!("src/{file}:{} → {used}", reference.line));
            }
        }
    }
    violations.into_iter().collect()
}

/// The uses that close a circle among the modules of one room.
fn circular_uses(source: &Source) -> Vec<String> {
    // From user to used, with the places of use.
    let mut uses: BTreeMap<Module, BTreeMap<Module, Vec<String>>> = BTreeMap::new();
    for (module, file, found) in source.in_rooms() {
        for reference in found {
            let Some(used) = source.definer(&reference.path, 0) else {
                continue;
            };
            let is_declaration = reference.is_reexport && used.starts_with(module);
            if used == *module || room(&used) != room(module) || reference.is_in_tests || is_declaration {
                continue;
            }
            let place = format!("src/{file}:{} → {}", reference.line, used.join("::"));
            uses.entry(module.clone())
                .or_default()
                .entry(used)
                .or_default()
                .push(place);
        }
    }
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
        while let Some(next) = queue.pop() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                queue.extend(uses.get(next).into_iter().flat_map(BTreeMap::keys));
            }
        }
        false
    };
    let in_circles = uses
        .iter()
        .flat_map(|(user, used)| used.iter().map(move |(used, places)| (user, used, places)))
        .filter(|(user, used, _)| reaches(used, user))
        .flat_map(|(_, _, places)| places.clone());
    in_circles.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn no_room_uses_one_above_it() {
    let source = Source::new(&read_tree());
    assert!(source.in_rooms().count() > 50, "the source is not where it is expected");
    let violations = upward_uses(&source);
    assert!(
        violations.is_empty(),
        "uses of a room above:\n{}",
        violations.join("\n")
    );
}

#[test]
fn no_modules_of_a_room_use_each_other_in_a_circle() {
    let violations = circular_uses(&Source::new(&read_tree()));
    assert!(violations.is_empty(), "uses in a circle:\n{}", violations.join("\n"));
}

fn fake(files: &[(&str, &str)]) -> Source {
    Source::new(
        &files
            .iter()
            .map(|(file, text)| (file.to_string(), text.to_string()))
            .collect(),
    )
}

#[test]
fn an_upward_use_is_found_in_every_form() {
    for (text, line) in [
        ("use crate::worker::wake;", 1),
        ("use crate::{pg::compat, worker};", 1),
        (
            "use crate::{\n    pg::{compat, text},\n    worker::{self, wake},\n};",
            3,
        ),
        ("fn f() {\n    crate::worker::wake()\n}", 2),
        ("use super::super::worker as w;", 1),
        ("use super::super::{api};", 1),
        ("mod inner {\n    use super::super::super::worker::wake;\n}", 2),
        ("use crate::*;", 1),
        ("static ROOT: u8 = crate::NAME;", 1),
        ("/* a\ncomment */ use crate::benches;", 2),
        ("const C: char = '\"'; use crate::worker; // \"", 1),
        ("fn f<'a>(a: &'a str) {} use crate::worker;", 1),
    ] {
        let source = fake(&[("lib.rs", ""), ("roster/mod.rs", ""), ("roster/beat.rs", text)]);
        let found = upward_uses(&source);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(
            found[0].starts_with(&format!("src/roster/beat.rs:{line} → ")),
            "{text}: {found:?}"
        );
    }
    assert_eq!(
        upward_uses(&fake(&[("stats.rs", "")])),
        ["src/stats.rs belongs to no room"]
    );
}

#[test]
fn a_use_of_ones_own_room_or_one_below_is_allowed() {
    for text in [
        "use crate::pg::compat;\nuse crate::{rules::token::Digest, settings};",
        "use super::layout;\nuse crate::roster::state;\nuse super::super::pg;",
        "use std::{worker::Worker, crate_name};\nuse pgrx::prelude::*;",
        "// use crate::worker;\n/* use crate::api; /* nested */ use crate::api; */",
        "const A: &str = \"use crate::worker;\";\nconst B: &str = r#\"crate::api::f() \" \"#;\nconst C: &str = \"\\\" crate::api\";",
        "use crate::fault_point;\nfn f() {\n    crate::fault_point!(\"commit\");\n    self::g();\n}",
        "pub(in crate::roster) fn f() {}\npub(crate) fn g() {}",
        "mod tests {\n    use super::*;\n    use super::super::layout;\n}",
    ] {
        let source = fake(&[
            ("pg/mod.rs", "macro_rules! fault_point { () => {} }"),
            ("roster/mod.rs", ""),
            ("roster/layout.rs", ""),
            ("roster/beat.rs", text),
        ]);
        assert_eq!(upward_uses(&source), [""; 0], "{text}");
    }
    let free = fake(&[
        ("lib.rs", "use crate::worker::start;"),
        ("benches.rs", "use crate::{api, worker};"),
    ]);
    assert_eq!(upward_uses(&free), [""; 0]);
}

#[test]
fn a_circle_is_found_also_through_mod_rs_and_re_exports() {
    for (mod_rs, layout, lock) in [
        ("", "use super::lock::Lock;", "use crate::roster::layout::Layout;"),
        ("", "use super::{lock};", "fn f() { super::layout::g() }"),
        (
            "pub use layout::Layout;\npub use lock::Lock;",
            "use super::Lock;",
            "use super::{Layout};",
        ),
        ("pub use layout::*;", "use super::lock;", "use super::Layout;"),
        ("use layout::Layout;\npub struct Seed;", "use super::Seed;", ""),
        ("pub struct Seed;\nfn f() { lock::g() }", "", "use crate::roster::Seed;"),
    ] {
        let layout = format!("pub struct Layout; pub fn g() {{}} {layout}");
        let lock = format!("pub struct Lock; pub fn g() {{}} {lock}");
        let source = fake(&[
            ("roster/mod.rs", mod_rs),
            ("roster/layout.rs", &layout),
            ("roster/lock.rs", &lock),
        ]);
        let found = circular_uses(&source);
        assert!(found.len() >= 2, "{mod_rs} | {layout} | {lock}: {found:?}");
        assert!(
            found
                .iter()
                .all(|place| place.contains(":1 → ") || place.contains(":2 → ")),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_no_circle_is_allowed() {
    for (mod_rs, layout, lock) in [
        (
            "mod layout;\nmod lock;\npub use layout::Layout;",
            "use super::Seed;",
            "use super::{Layout, layout};",
        ),
        (
            "pub struct Seed;\npub(crate) use lock::Lock;",
            "use super::{Lock, Seed};",
            "use super::Seed;",
        ),
        ("use layout::Layout;", "use super::lock::Lock;", ""),
        (
            "",
            "use super::lock;",
            "mod tests { use super::*; use super::super::layout::Layout; }",
        ),
        ("", "use super::lock; // and back", "// use super::layout;"),
    ] {
        let layout = format!("pub struct Layout; {layout}");
        let lock = format!("pub struct Lock; {lock}");
        let source = fake(&[
            ("roster/mod.rs", mod_rs),
            ("roster/layout.rs", &layout),
            ("roster/lock.rs", &lock),
        ]);
        assert_eq!(circular_uses(&source), [""; 0], "{mod_rs} | {layout} | {lock}");
    }
    let rooms = fake(&[
        ("pg/mod.rs", "use crate::rules::A;"),
        ("rules/mod.rs", "pub struct A; use crate::pg::B;"),
    ]);
    assert_eq!(circular_uses(&rooms), [""; 0], "circles of rooms are the other rule's");
}
