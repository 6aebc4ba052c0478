//! Links.

use std::path::Path;

use crate::page::{self, Page, root};

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    for name in page::names() {
        let page = Page::read(&name);
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = Path::new(&name).parent().expect("a directory");
            let target = if file.is_empty() {
                name.clone().into()
            } else {
                directory.join(file)
            };
            assert!(root().join(&target).exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let target = Page::read(target.to_str().expect("UTF-8"));
                assert!(target.anchors().iter().any(|found| found == anchor), "{name}: {link}");
            }
        }
    }
}

#[test]
fn the_readme_is_short_and_links_every_page() {
    let readme = Page::read("README.md");
    let lines = readme.source.lines().count();
    assert!(lines <= 350, "{lines} lines");
    for name in page::names() {
        let is_linked = readme.links.iter().any(|link| link.split('#').next() == Some(&name));
        assert!(is_linked || name == "README.md", "{name}");
    }
}
