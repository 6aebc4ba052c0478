//! The Makefile.

use std::fs;
use std::path::Path;

use crate::Machine;
use crate::machine::REPOSITORY;

#[test]
fn make_alone_prints_a_line_for_every_target() {
    let machine = Machine::new();
    let done = machine.run("make", &[]);
    assert!(done.succeeded && done.calls.is_empty(), "{}", done.output);
    assert_eq!(done.output, machine.run("make help", &[]).output);
    let makefile = fs::read_to_string(Path::new(REPOSITORY).join("Makefile")).unwrap();
    let targets: Vec<_> = makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY: "))
        .flat_map(str::split_whitespace)
        .collect();
    assert!(targets.contains(&"uninstall"), "{targets:?}");
    for target in targets {
        assert!(
            done.output.contains(&format!("make {target} ")),
            "make {target} in: {}",
            done.output
        );
    }
}
