//! README and docs/ do what they say, pasted literally by a stranger.

mod blocks;
mod links;
mod not_run;
mod page;
mod reference;
mod terminal;
mod world;

use page::Page;
use world::World;

/// The pages that have a test of their own below.
const OWN: [&str; 4] = ["README.md", "docs/migration.md", "docs/recipes.md", "docs/reference.md"];

#[test]
fn every_block_of_the_readme_works_as_pasted() {
    blocks::run(&Page::read("README.md"), &World::empty());
}

#[test]
fn every_step_of_a_migration_works_as_pasted() {
    blocks::run(&Page::read("docs/migration.md"), &World::installed());
}

#[test]
fn every_recipe_works_as_pasted() {
    blocks::run(&Page::read("docs/recipes.md"), &World::installed());
}

#[test]
fn every_example_of_the_reference_works_as_pasted() {
    blocks::run(&Page::read("docs/reference.md"), &World::installed());
}

#[test]
fn every_block_of_the_other_pages_works_as_pasted() {
    for name in page::names().iter().filter(|name| !OWN.contains(&name.as_str())) {
        let page = Page::read(name);
        if !page.blocks.is_empty() {
            blocks::run(&page, &World::installed());
        }
    }
}
