//! What the README shows works as shown.

use std::io::Write;
use std::process::Stdio;

use pg_presence_test::Cluster;

const README: &str = include_str!("../../../README.md");

/// Returns the SQL blocks of one chapter of the README.
fn sql_of(chapter: &str) -> Vec<&'static str> {
    let start = README.find(&format!("\n## {chapter}\n")).expect("the chapter");
    let text = &README[start + 1..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    text.split("```sql\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("its end"))
        .collect()
}

#[test]
fn the_sixty_seconds_of_sql_work_as_printed() {
    let database = Cluster::shared().database();
    let [first, watching, second] = sql_of("Sixty seconds of SQL")[..] else {
        panic!("three blocks: two of the first terminal, one of the second");
    };
    let (listen, _) = watching.split_once('\n').expect("LISTEN and a loop");
    let mut psql = database
        .cluster
        .program("psql", &database.name)
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = psql.stdin.take().unwrap();
    write!(terminal, "{listen}\n{first}\n{second}").unwrap();
    drop(terminal);
    let done = psql.wait_with_output().unwrap();
    assert!(done.status.success());
    let output = String::from_utf8(done.stdout).unwrap();
    let answers: Vec<_> = output
        .lines()
        .filter(|line| !line.starts_with("Asynchronous notification"))
        .map(|line| line.split('|').next().unwrap_or(line))
        .collect();
    let [online, key, beat, released, resumed, ended, late, offline, seen] = answers[..] else {
        panic!("{output}");
    };
    assert_eq!(
        [online, key, beat, released, resumed, ended, late, offline],
        ["t", "42", "ok", "t", "ok", "t", "ended", "f"]
    );
    assert!(seen.starts_with("20"), "{seen}");
}

#[test]
fn it_documents_exactly_the_servers_settings() {
    let rows = Cluster::shared()
        .connect("postgres")
        .query(
            "SELECT name FROM pg_settings WHERE starts_with(name, 'presence.') ORDER BY name",
            &[],
        )
        .unwrap();
    let mut documented: Vec<_> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `presence."))
        .map(|line| format!("presence.{}", line.split('`').next().unwrap_or_default()))
        .collect();
    documented.sort();
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(documented, found);
}

#[test]
fn it_names_every_function_and_table() {
    let database = Cluster::shared().database();
    let rows = database
        .connect()
        .query(
            "SELECT coalesce(p.proname, c.relname)::text
               FROM pg_depend d
               JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'pg_presence'
               LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
                    AND p.prorettype <> 'trigger'::regtype
               LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
              WHERE d.deptype = 'e' AND coalesce(p.proname, c.relname) IS NOT NULL",
            &[],
        )
        .unwrap();
    let internal = [
        "_grant_client",
        "_grant_holder",
        "_grant_reader",
        "_grant_service",
        "_grant_usage",
        "_start_worker",
        "_stats",
    ];
    let is_internal = |name: &str| {
        internal.contains(&name)
            || name.starts_with("_health_")
            || ["_grant_health", "_definitions", "_renamed_columns", "_comparable"].contains(&name)
    };
    let undocumented: Vec<&str> = rows
        .iter()
        .map(|row| row.get(0))
        .filter(|name: &&str| !is_internal(name) && !README.contains(&format!("`{name}")))
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}
