//! What the README prints works as printed.

use std::io::Write;
use std::process::Stdio;

use pg_presence_test::Cluster;

const README: &str = include_str!("../../../README.md");

/// The SQL blocks of one chapter of the README.
fn sql_of(chapter: &str) -> Vec<&'static str> {
    let start = README
        .find(&format!("\n## {chapter}\n"))
        .expect("the chapter");
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
    let said = psql.wait_with_output().unwrap();
    assert!(said.status.success());
    let said = String::from_utf8(said.stdout).unwrap();
    let answers: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("Asynchronous notification"))
        .map(|line| line.split('|').next().unwrap_or(line))
        .collect();
    let [
        online,
        key,
        beat,
        released,
        resumed,
        ended,
        late,
        offline,
        seen,
    ] = answers[..]
    else {
        panic!("{said}");
    };
    assert_eq!(
        [online, key, beat, released, resumed, ended, late, offline],
        ["t", "42", "ok", "t", "ok", "t", "ended", "f"]
    );
    assert!(seen.starts_with("20"), "{seen}");
}

#[test]
fn its_settings_are_the_servers() {
    let rows = Cluster::shared()
        .connect("postgres")
        .query(
            "SELECT name FROM pg_settings WHERE starts_with(name, 'presence.') ORDER BY name",
            &[],
        )
        .unwrap();
    let mut told: Vec<_> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `presence."))
        .map(|line| format!("presence.{}", line.split('`').next().unwrap_or_default()))
        .collect();
    told.sort();
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(told, found);
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
    let inner = [
        "presence_grant_usage",
        "presence_service_marker",
        "presence_start_worker",
        "presence_stats_raw",
    ];
    let untold: Vec<&str> = rows
        .iter()
        .map(|row| row.get(0))
        .filter(|name| !inner.contains(name) && !README.contains(&format!("`{name}")))
        .collect();
    assert!(untold.is_empty(), "{untold:?}");
}
