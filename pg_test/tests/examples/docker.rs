//! examples/docker, as far as it can be tried without Docker.

use std::path::Path;
use std::process::Command;

use pg_presence_test::{Cluster, Install, Presence, tools};
use postgres::Client;
use uuid::Uuid;

use crate::run;

const DOCKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/docker");
const DASHBOARD_SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/dashboard/schema.sql");

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    let done = Command::new(tools().join("frameworks/python/bin/hadolint"))
        .arg(Path::new(DOCKER).join("Dockerfile"))
        .output()
        .expect("what pg_test/bin/setup tests installs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn the_first_start_sets_up_what_postgrest_and_the_page_need() {
    // On a private server, as roles belong to the whole server.
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::None);
    // The script runs psql, as in the image.
    let psql = cluster.program("psql", &database.name);
    let programs = Path::new(psql.get_program()).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut script = Command::new(Path::new(DOCKER).join("initdb.sh"));
    script
        .env("PATH", path)
        .env("POSTGRES_USER", "postgres")
        .env("POSTGRES_DB", &database.name)
        .env("AUTHENTICATOR_PASSWORD", "it's one")
        .env("PAGE_PASSWORD", "another")
        .env("DASHBOARD_SCHEMA", DASHBOARD_SCHEMA);
    run(&database, "postgres", &mut script);
    database.wait_until_served();

    let user = Uuid::new_v4();
    // As PostgREST does it: a transaction for each request, in the role that the token names.
    let mut postgrest = database.connect_as("authenticator");
    let switch = |postgrest: &mut Client, role: &str| {
        let sql = format!("COMMIT; BEGIN; SET LOCAL ROLE {role}");
        postgrest.batch_execute(&sql).unwrap();
    };
    postgrest.act_for(user);
    switch(&mut postgrest, "authenticated");
    let session = postgrest.start_own();
    switch(&mut postgrest, "authenticated");
    assert!(postgrest.is_online(user));
    switch(&mut postgrest, "anon");
    assert_eq!(postgrest.beat_by_token(&session.token), "ok");
    switch(&mut postgrest, "service_role");
    assert_eq!(postgrest.online_users(), [user]);
    postgrest.batch_execute("COMMIT").unwrap();

    let mut page = database.connect_as("dashboard");
    let users: i64 = page.query_one("SELECT count(*) FROM app.users", &[]).unwrap().get(0);
    assert!(users > 3);
    // Both log in with the passwords that they were given.
    let with_password = "SELECT count(*) FROM pg_authid WHERE rolname IN ('authenticator', 'dashboard')
                         AND rolcanlogin AND rolpassword LIKE 'SCRAM-SHA-256$%'";
    let row = database.connect().query_one(with_password, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 2);
}
