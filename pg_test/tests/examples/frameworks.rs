//! docs/frameworks.md and examples/models, with the drivers and tools themselves. Their programs are in pg_test/frameworks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use pg_presence_test::{Cluster, Database, Install, Pooler, tools, wait_until_equal};

use crate::{lines, run, served, with_connection};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frameworks");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const TYPES: &str = include_str!("../../../examples/models/database.types.ts");

/// Returns a Python program of pg_test/frameworks.
fn python(program: &str) -> Command {
    let mut python = Command::new(tools().join("frameworks/python/bin/python"));
    // Nothing is written into the clone.
    python.arg("-B").arg(Path::new(PROGRAMS).join(program));
    python
}

/// Returns a directory with the JavaScript programs, the models, and the modules that they import.
fn node_directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("frameworks{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let dir = Cluster::shared().socket_directory().join(name);
    fs::create_dir(&dir).unwrap();
    for from in [PROGRAMS.to_owned(), format!("{ROOT}/examples/models")] {
        for file in fs::read_dir(from).unwrap() {
            let path = file.unwrap().path();
            let is_program = path.extension().is_some_and(|end| end == "mjs" || end == "ts");
            if is_program || path.ends_with("package.json") {
                fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    symlink(tools().join("frameworks/node/node_modules"), dir.join("node_modules")).unwrap();
    dir
}

fn node(program: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(program)
        .current_dir(node_directory())
        .env("PAGE", format!("{ROOT}/docs/frameworks.md"));
    node
}

/// Runs a program that calls the functions, as a service.
fn call_with(mut program: Command, driver: &str) {
    let database = served();
    run(&database, &database.service(), program.arg(driver));
}

#[test]
fn psycopg_works_as_the_page_says() {
    call_with(python("drivers.py"), "psycopg");
}

#[test]
fn asyncpg_works_as_the_page_says() {
    call_with(python("drivers.py"), "asyncpg");
}

#[test]
fn sqlalchemy_works_as_the_page_says() {
    call_with(python("drivers.py"), "sqlalchemy");
}

#[test]
fn drivers_that_do_not_prepare_statements_work_through_every_pgbouncer() {
    let database = served();
    let service = database.service();
    // Fewer than the connections of the program.
    let pooler = Pooler::new(database.cluster, 2, &[&service]);
    let mut program = python("drivers.py");
    with_connection(&database, &service, program.arg("pgbouncer"))
        .env("PGHOST", pooler.socket_directory())
        .env("PGPORT", "6432");
    let done = program.output().unwrap();
    assert!(lines(&program, &done).is_empty());
}

#[test]
fn node_postgres_works_as_the_page_says() {
    call_with(node("drivers.mjs"), "pg");
}

#[test]
fn drizzle_works_as_the_page_says() {
    call_with(node("drivers.mjs"), "drizzle");
}

#[test]
fn typeorm_works_as_the_page_says() {
    call_with(node("drivers.mjs"), "typeorm");
}

#[test]
fn sequelize_works_as_the_page_says() {
    call_with(node("drivers.mjs"), "sequelize");
}

#[test]
fn the_models_for_sqlalchemy_are_those_of_the_tables_and_alembic_leaves_these_alone() {
    let database = served();
    run(&database, "postgres", &mut python("sqlalchemy_tables.py"));
    assert_healthy(&database, "presence");
}

#[test]
fn django_migrates_beside_the_extension_and_reads_its_models() {
    let database = served();
    run(&database, "postgres", &mut python("django_app.py"));
    assert_healthy(&database, "presence");
}

#[test]
fn the_code_that_the_page_shows_for_django_keeps_users_online_and_signs_them_out() {
    run(&served(), "postgres", &mut python("django_walk.py"));
}

/// Asserts that no health check finds anything to mend; on a machine that is busy, the worker may be late when it is asked.
fn assert_healthy(database: &Database, schema: &str) {
    let sql = format!("SELECT check_name, detail FROM {schema}.presence_health() WHERE NOT ok");
    let mut client = database.connect();
    wait_until_equal("failed checks", &Vec::<(String, String)>::new(), || {
        let rows = client.query(&sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    });
}

/// Has a tool add a column to a table of an application, with the extension in either schema.
fn change_schema_with(tool: &str) {
    for (install, schema) in [(Install::Presence, "presence"), (Install::Public, "public")] {
        let database = Cluster::shared().database_with(install);
        database.wait_until_served();
        database.run("CREATE TABLE app_user (id uuid PRIMARY KEY)");
        let mut program = node("schema_tools.mjs");
        run(&database, "postgres", program.args([tool, schema]));
        database.run("SELECT email FROM app_user");
        assert_healthy(&database, schema);
    }
}

#[test]
fn drizzle_kit_pushes_beside_the_extension() {
    change_schema_with("drizzle");
}

#[test]
fn typeorm_synchronizes_beside_the_extension() {
    change_schema_with("typeorm");
}

#[test]
fn sequelize_synchronizes_beside_the_extension() {
    change_schema_with("sequelize");
}

#[test]
fn the_typescript_models_have_the_types_that_clients_rely_on() {
    let dir = node_directory();
    let options = [
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "nodenext",
    ];
    let checked = Command::new("node")
        .arg("node_modules/typescript/bin/tsc")
        .args(options)
        .arg("types.ts")
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// The server of examples/dashboard, stopped when dropped.
struct Dashboard {
    process: Child,
    address: String,
    /// Open, as it prints every change.
    _output: BufReader<ChildStdout>,
}

impl Dashboard {
    fn new(database: &Database) -> Dashboard {
        let mut schema = database.cluster.program("psql", &database.name);
        schema
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "password=unused"])
            .stdin(fs::File::open(format!("{ROOT}/examples/dashboard/schema.sql")).unwrap())
            .env("PGOPTIONS", "--client-min-messages=warning");
        run(database, "postgres", &mut schema);
        database.wait_until_served();
        let cargo = |verb| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args([verb, "--locked", "--quiet", "--package", "pg_presence_dashboard"]);
            cargo.args(["--bin", "pg_presence_dashboard"]).current_dir(ROOT);
            cargo
        };
        assert!(cargo("build").status().expect("cargo").success());
        let mut server = cargo("run");
        let mut process = with_connection(database, "dashboard", &mut server)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo");
        let mut address = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut address).unwrap();
        Dashboard {
            process,
            address: address.trim_end().to_owned(),
            _output: output,
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn postgrest_js_calls_the_functions_of_a_server_that_answers_as_postgrest_does() {
    // On a private server, as roles belong to the whole server.
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::None);
    let dashboard = Dashboard::new(&database);
    let mut program = node("supabase.mjs");
    run(&database, "dashboard", program.env("ADDRESS", &dashboard.address));
}

/// Returns the columns that a type of database.types.ts has: whether each may be null.
fn columns_of(start: &str) -> BTreeMap<String, bool> {
    let at = TYPES.find(start).unwrap_or_else(|| panic!("{start}")) + start.len();
    let body = &TYPES[at..];
    let body = &body[..body.find('}').unwrap()];
    body.lines()
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, kind)| (name.to_owned(), kind.contains("null")))
        .collect()
}

#[test]
fn the_types_for_supabase_js_are_those_of_the_catalogs() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    for (table, start) in [
        ("user_sessions", "type Session = {"),
        ("user_presence", "user_presence: {\n        Row: {"),
        ("presence_changes", "type Change = {"),
    ] {
        let sql = "SELECT attname::text, NOT attnotnull FROM pg_attribute
                   WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
        let rows = client.query(sql, &[&format!("presence.{table}")]).unwrap();
        let real: BTreeMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(columns_of(start), real, "{table}");
    }
    let sql =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'presence.presence_stats'::regclass AND attnum > 0";
    let rows = client.query(sql, &[]).unwrap();
    let mut real: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    real.sort();
    let typed: Vec<String> = columns_of("presence_stats: {\n        Row: {").into_keys().collect();
    assert_eq!(typed, real);

    // Every function that somebody may call, with its arguments; those with a default are optional.
    let sql = "SELECT p.proname::text, a.name, a.place > p.pronargs - p.pronargdefaults
                 FROM pg_proc p
                 LEFT JOIN LATERAL unnest(p.proargnames) WITH ORDINALITY a (name, place) ON a.place <= p.pronargs
                WHERE p.pronamespace = 'presence'::regnamespace AND p.proname NOT LIKE '\\_%' AND p.proname NOT LIKE 'grant\\_%'
                  AND p.proname <> 'renew_epoch'";
    for row in client.query(sql, &[]).unwrap() {
        let (function, argument): (&str, Option<&str>) = (row.get(0), row.get(1));
        let start = format!("\n      {function}: {{");
        let at = TYPES.find(&start).unwrap_or_else(|| panic!("no function {function}"));
        let body = &TYPES[at + 1..];
        let end = body.find("\n      }").map_or(body.len(), |end| end + 8);
        let line_end = body.find('\n').unwrap();
        let body = if body[..line_end].ends_with('}') {
            &body[..line_end]
        } else {
            &body[..end]
        };
        let expected = match argument {
            None => "Args: never".to_owned(),
            Some(name) if row.get::<_, Option<bool>>(2) == Some(true) => format!("{name}?: "),
            Some(name) => format!("{name}: "),
        };
        assert!(body.contains(&expected), "{function}: no {expected} in {body}");
    }
}
