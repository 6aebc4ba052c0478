//! The reference has an entry for each public function, table and setting, and says of it what the catalogs say.

use std::collections::BTreeMap;

use postgres::Client;

use crate::page::Page;
use crate::world::World;

/// The functions of the extension that are not internal: name, signature, comment.
const FUNCTIONS: &str = r"
    SELECT p.proname, format('%s(%s) → %s', p.proname, regexp_replace(replace(regexp_replace(
               pg_get_function_arguments(p.oid), '::[a-z ]+(\[\])?', '', 'g'), ' DEFAULT ', ' = '), '00:00:(\d\d)', '\1 s'),
               pg_get_function_result(p.oid)),
           obj_description(p.oid, 'pg_proc'), p.oid::regprocedure::text
      FROM pg_depend d
      JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_presence'
      JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
     WHERE d.deptype = 'e' AND p.proname !~ '^_' ORDER BY 2";

/// Who may call a function, in the order in which an entry names them.
const CALLERS: [&str; 4] = ["holder", "client", "reader", "service"];

#[test]
fn every_function_has_an_entry_with_its_signature_and_comment() {
    let world = World::installed();
    let mut client = world.connect();
    let page = Page::read("docs/reference.md");
    let entries = entries(&page);
    let rows = client.query(FUNCTIONS, &[]).unwrap();
    for row in &rows {
        let (name, signature, comment): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let entry = entries
            .get(name)
            .unwrap_or_else(|| panic!("no entry for {signature}\n{comment}"));
        assert!(entry.contains(&format!("`{signature}`")), "{signature}: {entry}");
        assert!(one_line(entry).contains(comment), "{comment}: {entry}");
        let call = format!("{name}(");
        let mut examples = page.blocks.iter().filter(|block| block.heading == name);
        assert!(
            examples.any(|example| example.text.contains(&call)),
            "no example: {entry}"
        );
    }
    let known: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    for name in entries.keys().filter(|name| !name.contains(' ')) {
        assert!(known.contains(&name.as_str()), "there is no function {name}");
    }
}

#[test]
fn every_entry_names_those_who_may_call_the_function() {
    let world = World::installed();
    let mut client = world.connect();
    for role in CALLERS {
        let grant = format!("CREATE ROLE a_{role}; SELECT grant_{role}('a_{role}')");
        client.batch_execute(&grant).unwrap();
    }
    client
        .batch_execute("CREATE ROLE anybody; GRANT USAGE ON SCHEMA presence TO anybody")
        .unwrap();
    let page = Page::read("docs/reference.md");
    let entries = entries(&page);
    for row in &client.query(FUNCTIONS, &[]).unwrap() {
        let (name, function): (&str, &str) = (row.get(0), row.get(3));
        let who = may_call(&mut client, function);
        let callers = format!("Callers: {who}.");
        assert!(entries[name].contains(&callers), "{callers}: {}", entries[name]);
    }
}

/// Returns who may call a function, as the reference writes it.
fn may_call(client: &mut Client, function: &str) -> String {
    let mut may = |role: &str| -> bool {
        let sql = "SELECT has_function_privilege($1, $2, 'EXECUTE')";
        client.query_one(sql, &[&role, &function]).unwrap().get(0)
    };
    if may("anybody") {
        return "all".into();
    }
    let mut who: Vec<&str> = CALLERS.into_iter().filter(|role| may(&format!("a_{role}"))).collect();
    who.extend(may("pg_monitor").then_some("pg_monitor"));
    who.extend(may("owner").then_some("owner").filter(|_| !who.contains(&"service")));
    who.join(", ")
}

/// The text of each entry, by its heading.
fn entries(page: &Page) -> BTreeMap<String, &str> {
    let sections = page.source.split("\n### ").skip(1);
    let entries = sections.map(|section| {
        let section = section.split("\n## ").next().expect("a section");
        let (heading, text) = section.split_once('\n').expect("an entry");
        (heading.replace('`', ""), text)
    });
    entries.collect()
}

fn one_line(text: &str) -> String {
    text.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_settings_are_exactly_those_of_the_server() {
    let world = World::installed();
    let sql = "SELECT name FROM pg_settings WHERE starts_with(name, 'presence.') ORDER BY name";
    let rows = world.connect().query(sql, &[]).unwrap();
    let page = Page::read("docs/settings.md");
    let mut documented: Vec<_> = page
        .source
        .lines()
        .filter_map(|line| line.strip_prefix("| `presence."))
        .map(|line| format!("presence.{}", line.split('`').next().unwrap_or_default()))
        .collect();
    documented.sort();
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(documented, found);
}

#[test]
fn the_reference_names_every_table_view_and_column() {
    let world = World::installed();
    let sql = "SELECT c.relname::text, a.attname::text
                 FROM pg_depend d
                 JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_presence'
                 JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                WHERE d.deptype = 'e' AND c.relname !~ '^_'";
    let page = Page::read("docs/reference.md");
    for row in &world.connect().query(sql, &[]).unwrap() {
        let (table, column): (&str, &str) = (row.get(0), row.get(1));
        let start = format!("| `{table}` | ");
        let line = page.source.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no line of {table}"));
        assert!(line.contains(&format!("`{column}`")), "{table}.{column}: {line}");
    }
}

#[test]
fn the_readme_names_every_function() {
    let world = World::installed();
    let readme = Page::read("README.md");
    for row in &world.connect().query(FUNCTIONS, &[]).unwrap() {
        let name: &str = row.get(0);
        assert!(readme.source.contains(&format!("`{name}")), "{name}");
    }
}
