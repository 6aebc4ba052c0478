//! The blocks that are not run, each with how it is checked otherwise. What is not in this list has to run.

use std::process::Command;

use crate::page::{Block, Page, root};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Check {
    /// Targets of the Makefile, which would install or build: they have to exist, and `make --dry-run` to accept them.
    Make,
    /// Commands for an administrator of the machine: they have to be valid shell.
    Shell,
    /// A picture, or the output of a program.
    Picture,
    /// Code in another language, or for a program that is not here; a test of this file, in pg_test/, runs the like.
    Like(&'static str),
    /// Code in a language that is not on the machines of the tests: it was tried by hand, and is not checked.
    NotHere,
}

/// The page, how the block begins, and how it is checked.
const NOT_RUN: &[(&str, &str, Check)] = &[
    ("README.md", "make demo", Check::Make),
    ("README.md", "make install", Check::Make),
    ("README.md", "make deb", Check::Make),
    ("README.md", "sudo systemctl restart postgresql", Check::Shell),
    ("docs/architecture.md", " clients            tables", Check::Picture),
    ("docs/architecture.md", "Header │ locks", Check::Picture),
    ("docs/glossary.md", "stateDiagram-v2", Check::Picture),
    ("docs/frameworks.md", "ERROR:  function", Check::Picture),
    (
        "docs/frameworks.md",
        "User.objects",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "db.select",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "User.select",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "# presence/sessions.py",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "# presence/middleware.py",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "INSTALLED_APPS",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    (
        "docs/frameworks.md",
        "# people/views.py",
        Check::Like("tests/examples/frameworks.rs"),
    ),
    ("docs/frameworks.md", "# app/models/presence.rb", Check::NotHere),
    ("docs/frameworks.md", "# app/controllers", Check::NotHere),
    ("docs/frameworks.md", "# app/models/user.rb", Check::NotHere),
    // `monitoring.rs` of the suite `examples` runs the exporter, `metrics.rs` of `server` reads the metrics.
    (
        "docs/monitoring.md",
        "# TYPE pg_presence_users_online gauge",
        Check::Picture,
    ),
    ("docs/monitoring.md", "export DATA_SOURCE_NAME", Check::Shell),
    ("docs/monitoring.md", "psql -XAtq", Check::Shell),
];

/// Checks a block that is not run. Returns false if it has to be run.
pub fn check(page: &Page, block: &Block) -> bool {
    let declared = NOT_RUN
        .iter()
        .find(|(name, start, _)| *name == page.name && block.text.starts_with(start));
    let Some((_, _, check)) = declared else {
        return false;
    };
    let place = format!("{}:{}", page.name, block.line);
    match check {
        Check::Picture => assert!(["", "text", "mermaid"].contains(&block.language.as_str()), "{place}"),
        Check::NotHere => {}
        Check::Like(file) => assert!(root().join("pg_test").join(file).exists(), "{place}: {file}"),
        Check::Shell => assert_is_shell(&place, block),
        Check::Make => {
            assert_is_shell(&place, block);
            for line in block.text.lines().filter(|line| line.starts_with("make ")) {
                let make = Command::new("bash")
                    .args([
                        "-c",
                        &format!("{} --dry-run", line.split('#').next().unwrap_or_default()),
                    ])
                    .current_dir(root())
                    .output()
                    .expect("make");
                let refusal = String::from_utf8_lossy(&make.stderr);
                assert!(make.status.success(), "{place}: {line}: {refusal}");
            }
        }
    }
    true
}

fn assert_is_shell(place: &str, block: &Block) {
    assert_eq!(block.language, "sh", "{place}");
    let bash = Command::new("bash")
        .args(["-n", "-c", &block.text])
        .output()
        .expect("bash");
    assert!(
        bash.status.success(),
        "{place}: {}",
        String::from_utf8_lossy(&bash.stderr)
    );
}

#[test]
fn every_block_that_is_not_run_is_still_there() {
    for (name, start, _) in NOT_RUN {
        let page = Page::read(name);
        let found = page.blocks.iter().filter(|block| block.text.starts_with(start)).count();
        assert_eq!(found, 1, "{name}: {start}");
    }
}
