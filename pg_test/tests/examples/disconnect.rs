//! The same programs, disconnected from the server while somebody signs in: they catch up on it when they reconnect. Also
//! if nobody tells them, because the connection was cut silently.

use std::{env, path::Path, process::Command};

use pg_presence_test::{Cluster, Database, Install, Presence, wait_until};
use uuid::Uuid;

use crate::proxy::{Cut, Proxy};
use crate::running::Running;
use crate::{CLIENTS, node, python, rust, served, set_up_for_postgrest, with_connection};

/// Closes the connection on which the role follows the feed, and admits no new one until `meanwhile` returns.
pub fn disconnect(database: &Database, role: &str, meanwhile: impl FnOnce()) {
    let mut postgres = database.connect();
    database.run(&format!("ALTER ROLE {role} NOLOGIN"));
    // Every statement of a follower matches.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = $1
               AND query ~ 'LISTEN|presence_cursor|user_presence|changes_since|claims|COMMIT'";
    wait_until("the connections to be closed", || {
        postgres.query_one(sql, &[&role]).unwrap().get::<_, i64>(0) == 0
    });
    meanwhile();
    database.run(&format!("ALTER ROLE {role} LOGIN"));
}

/// Runs a program that follows the feed before the worker has written its login, and loses its connection while the worker
/// writes it: `lose` does that, calls the function it is given, and lets the program connect again.
fn lose_the_connection(
    name: &str,
    program: impl FnOnce() -> Command,
    lose: impl FnOnce(&Database, &str, &Proxy, &Running, &mut dyn FnMut()),
) {
    let database = served();
    let proxy = Proxy::new(database.cluster);
    let service = database.service();
    let mut blocker = database.connect();
    let mut waiting = blocker.transaction().unwrap();
    // Everybody can read; only the worker has to wait.
    waiting
        .batch_execute("LOCK TABLE presence.presence_changes IN SHARE MODE")
        .unwrap();
    let mut program = program();
    let url = format!(
        "host=127.0.0.1 port={} user={service} dbname={}",
        proxy.port, database.name
    );
    let running = Running::new(
        with_connection(&database, &service, &mut program)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", proxy.port.to_string())
            .env("DATABASE_URL", url),
    );
    let mut reader = database.connect();
    let user: Uuid = reader
        .query_one("SELECT presence.presence_id($1)", &[&name])
        .unwrap()
        .get(0);
    wait_until("the program to be signed in and to follow", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1
                   AND state = 'idle' AND query ~ 'FROM .?presence.?\\.user_presence'";
        let follows = reader.query_one(sql, &[&service]).unwrap().get::<_, i64>(0) == 1;
        follows && reader.is_online(user)
    });
    let mut waiting = Some(waiting);
    lose(&database, &service, &proxy, &running, &mut || {
        waiting.take().expect("one call").commit().unwrap();
        reader.wait_for_written(user, true);
    });
    let output = running.end();
    assert!(
        output.iter().any(|line| line.starts_with("disconnected: ")),
        "{output:?}"
    );
    let statuses: Vec<_> = output.iter().filter(|line| line.starts_with("status: ")).collect();
    assert_eq!(statuses, ["status: active", "status: inactive"], "{output:?}");
}

fn disconnect_before_its_login_is_written(name: &str, program: impl FnOnce() -> Command) {
    lose_the_connection(name, program, |database, service, _, _, meanwhile| {
        disconnect(database, service, meanwhile);
    });
}

/// The same, but the connection is cut silently, and so are new ones on which it listens until it has noticed.
fn cut_before_its_login_is_written(name: &str, program: impl FnOnce() -> Command) {
    lose_the_connection(name, program, |_, _, proxy, running, meanwhile| {
        proxy.cut(Cut::Listeners);
        meanwhile();
        running.wait_for(|line| line.starts_with("disconnected: "));
        proxy.cut(Cut::Nothing);
    });
}

#[test]
fn node_catches_up_on_changes_made_while_disconnected() {
    disconnect_before_its_login_is_written("node", node);
}

#[test]
fn python_catches_up_on_changes_made_while_disconnected() {
    disconnect_before_its_login_is_written("python", python);
}

#[test]
fn rust_catches_up_on_changes_made_while_disconnected() {
    disconnect_before_its_login_is_written("rust", rust);
}

#[test]
fn node_notices_that_its_connection_was_cut_and_catches_up() {
    cut_before_its_login_is_written("node", node);
}

#[test]
fn python_notices_that_its_connection_was_cut_and_catches_up() {
    cut_before_its_login_is_written("python", python);
}

#[test]
fn rust_notices_that_its_connection_was_cut_and_catches_up() {
    cut_before_its_login_is_written("rust", rust);
}

/// Asserts that an endless script prints who is online, who comes online, who comes online while it is disconnected, and who
/// goes offline after that.
fn disconnect_between_two_turns(database: &Database, role: &str, mut script: Command) {
    let mut service = database.connect();
    let users: [Uuid; 3] = std::array::from_fn(|_| Uuid::new_v4());
    let mut sign_in = |user: Uuid| {
        let session = service.start(user);
        service.wait_for_written(user, true);
        session
    };
    sign_in(users[0]);
    let follower = Running::new(with_connection(database, role, &mut script));
    let prints = |user: Uuid, status: &'static str| {
        let user = user.to_string();
        follower.wait_for(|line| {
            let at = line.find(&user);
            at.is_some_and(|at| line[at + user.len()..].split(['|', '"']).any(|word| word == status))
        });
    };
    prints(users[0], "active");
    let second = sign_in(users[1]);
    prints(users[1], "active");
    disconnect(database, role, || {
        sign_in(users[2]);
    });
    prints(users[2], "active");
    service.end(second.id);
    prints(users[1], "inactive");
}

/// Returns the script `follow` of an example, with the psql of this server.
fn script(database: &Database, client: &str) -> Command {
    let psql = database.cluster.program("psql", &database.name);
    let mut path = Path::new(psql.get_program())
        .parent()
        .expect("a directory")
        .to_owned()
        .into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").expect("PATH"));
    let mut script = Command::new(Path::new(CLIENTS).join(client).join("follow"));
    script.env("PATH", path);
    script
}

#[test]
fn psql_catches_up_on_changes_made_while_disconnected() {
    let database = served();
    disconnect_between_two_turns(&database, &database.service(), script(&database, "psql"));
}

#[test]
fn the_page_behind_postgrest_catches_up_on_changes_made_while_disconnected() {
    // On a private server, as roles belong to the whole server.
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::None);
    set_up_for_postgrest(&database);
    disconnect_between_two_turns(&database, "authenticator", script(&database, "supabase"));
}
