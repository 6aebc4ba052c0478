//! The gateway of examples/gateway, as browsers and the database see it. Hours pass by the server's clock, so that a grace
//! of one hour is over when a test says so.

mod browser;
mod deaths;
mod limits;
mod words;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

use pg_presence_test::{Database, Presence, wait_for, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::executable;
use crate::hours::{Server, wait_for_feed};
use crate::running::Running;

const STARTED: &str = "started: inactive, active";
const RELEASED: &str = "started: inactive, active; released: active, inactive";

/// A running gateway, which connects as a role of its own.
struct Gateway {
    address: String,
    role: String,
    running: Running,
}

impl Gateway {
    /// Starts it, with a grace of one hour.
    fn start(database: &Database) -> Gateway {
        Gateway::start_with(database, &[])
    }

    fn start_with(database: &Database, environment: &[(&str, &str)]) -> Gateway {
        static PROGRAM: LazyLock<String> = LazyLock::new(|| executable("pg_presence_gateway"));
        let role = database.service();
        let host = database.cluster.socket_directory().display();
        let url = format!("host={host} user={role} dbname={}", database.name);
        let mut program = Command::new(&*PROGRAM);
        program.env("DATABASE_URL", url).env("PORT", "0").env("GRACE", "3600");
        let running = Running::new(program.envs(environment.iter().copied()));
        let address = wait_for("the gateway to listen", || {
            let mut lines = running.output().into_iter();
            lines.find_map(|line| Some(line.strip_prefix("ws://")?.strip_suffix("/socket")?.to_owned()))
        });
        Gateway { address, role, running }
    }

    /// Kills it, and waits until its connections have ended.
    fn kill(&self, database: &Database) {
        self.running.signal("KILL");
        self.wait_until_disconnected(database);
    }

    fn wait_until_disconnected(&self, database: &Database) {
        let mut client = database.connect();
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        wait_until("the connections have ended", || {
            client.query_one(sql, &[&self.role]).unwrap().get::<_, i64>(0) == 0
        });
    }

    /// Waits until a statement with this function is the last that the connection which binds has completed.
    fn wait_until_called(&self, database: &Database, function: &str) {
        let mut client = database.connect();
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'idle' AND query ~ $2";
        wait_until(function, || {
            client
                .query_one(sql, &[&self.role, &function])
                .unwrap()
                .get::<_, i64>(0)
                == 1
        });
    }
}

/// A database of a server.
fn database(server: &Server) -> Database<'_> {
    let database = server.cluster.database();
    database.wait_until_served();
    database
}

/// Lets hours pass, and waits until somebody else has timed out meanwhile: the worker has looked. At least six.
fn let_pass(server: &Server, database: &Database, hours: i64) {
    let mut client = database.connect();
    let stranger = Uuid::new_v4();
    client.start(stranger);
    wait_for_feed(&mut client, stranger, STARTED);
    server.pass(hours);
    let timed_out = "started: inactive, active; timed_out: active, inactive";
    wait_for_feed(&mut client, stranger, timed_out);
}

/// How many of these users have which feed.
fn feeds(client: &mut Client, users: &[Uuid]) -> BTreeMap<String, i64> {
    let sql = "SELECT feed, count(*) FROM
                   (SELECT string_agg(format('%s: %s, %s', reason, previous, status), '; ' ORDER BY seq) AS feed
                    FROM presence.presence_changes WHERE user_id = ANY ($1) GROUP BY user_id) AS of_user
               GROUP BY feed";
    let rows = client.query(sql, &[&users]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until all of these users have this feed.
fn wait_for_feeds(client: &mut Client, users: &[Uuid], expected: &str) {
    let expected = BTreeMap::from([(expected.to_owned(), i64::try_from(users.len()).unwrap())]);
    pg_presence_test::wait_until_equal("the feeds", &expected, || feeds(client, users));
}

fn assert_feeds(client: &mut Client, users: &[Uuid], expected: &str) {
    let expected = BTreeMap::from([(expected.to_owned(), i64::try_from(users.len()).unwrap())]);
    assert_eq!(feeds(client, users), expected);
}
