//! The same programs, cut off from the server while somebody signs in: they hear of it all the same.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use pg_presence_test::{Cluster, Database, Install, Presence, wait_for, wait_until};
use uuid::Uuid;

use crate::{CLIENTS, node, python, rust, served, set_up_for_postgrest, with_connection};

/// A program at work, and what it has said until now.
struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    fn new(program: &mut Command) -> Running {
        let mut child = program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A script's own programs end with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("a pipe")),
            Box::new(child.stderr.take().expect("a pipe")),
        ];
        let readers = outputs.map(|output| {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    said.lock().unwrap().push(line.expect("UTF-8"));
                }
            })
        });
        Running {
            child,
            said,
            readers: readers.into(),
        }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    fn wait_for(&self, what: impl Fn(&str) -> bool) {
        wait_until("a program to say it", || {
            self.said().iter().any(|line| what(line))
        });
    }

    /// All that it has said, once it has ended well.
    fn end(mut self) -> Vec<String> {
        let status = wait_for("a program to end", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().expect("its output");
        }
        let said = self.said();
        assert!(status.success(), "{status}: {said:?}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{:?}", self.said());
        }
        if let Ok(None) = self.child.try_wait() {
            let kill = format!("kill -s TERM -- -{}", self.child.id());
            let _ = Command::new("sh").args(["-c", &kill]).status();
            let _ = self.child.wait();
        }
    }
}

/// Cuts the connection on which the role follows, and lets no other begin until `meanwhile` is over.
fn cut(database: &Database, role: &str, meanwhile: impl FnOnce()) {
    let mut postgres = database.connect();
    database.run(&format!("ALTER ROLE {role} NOLOGIN"));
    // All of a follower's statements are of these.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = $1
               AND query ~ 'LISTEN|presence_cursor|user_presence|changes_since|claims|COMMIT'";
    wait_until("the connections to go", || {
        postgres.query_one(sql, &[&role]).unwrap().get::<_, i64>(0) == 0
    });
    meanwhile();
    database.run(&format!("ALTER ROLE {role} LOGIN"));
}

/// A program follows before the worker gets to tell it of its own login, and is cut off while the worker does.
fn cut_while_it_waits_for_its_login(name: &str, program: impl FnOnce() -> Command) {
    let database = served();
    let service = database.service();
    let mut blocker = database.connect();
    let mut waiting = blocker.transaction().unwrap();
    // Everybody may read, only the worker has to wait.
    waiting
        .batch_execute("LOCK TABLE presence.presence_changes IN SHARE MODE")
        .unwrap();
    let mut program = program();
    let running = Running::new(with_connection(&database, &service, &mut program));
    let mut reader = database.connect();
    let user: Uuid = reader
        .query_one("SELECT presence.presence_id($1)", &[&name])
        .unwrap()
        .get(0);
    wait_until("it to be signed in and to follow", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1
                   AND state = 'idle' AND query ~ 'FROM presence.user_presence'";
        let follows = reader.query_one(sql, &[&service]).unwrap().get::<_, i64>(0) == 1;
        follows && reader.is_online(user)
    });
    cut(&database, &service, || {
        waiting.commit().unwrap();
        reader.wait_for_written(user, true);
    });
    let said = running.end();
    assert!(
        said.iter().any(|line| line.starts_with("disconnected: ")),
        "{said:?}"
    );
    let told: Vec<_> = said
        .iter()
        .filter(|line| line.starts_with("told: "))
        .collect();
    assert_eq!(told, ["told: active", "told: inactive"], "{said:?}");
}

#[test]
fn node_hears_of_what_happens_while_it_is_cut_off() {
    cut_while_it_waits_for_its_login("node", node);
}

#[test]
fn python_hears_of_what_happens_while_it_is_cut_off() {
    cut_while_it_waits_for_its_login("python", python);
}

#[test]
fn rust_hears_of_what_happens_while_it_is_cut_off() {
    cut_while_it_waits_for_its_login("rust", rust);
}

/// A script that never ends says who is there, who comes, who comes while it is cut off, and who goes after that.
fn cut_between_two_turns(database: &Database, role: &str, mut script: Command) {
    let mut service = database.connect();
    let users: [Uuid; 3] = std::array::from_fn(|_| Uuid::new_v4());
    let mut sign_in = |user: Uuid| {
        let session = service.start(user);
        service.wait_for_written(user, true);
        session
    };
    sign_in(users[0]);
    let follower = Running::new(with_connection(database, role, &mut script));
    let says = |user: Uuid, status: &'static str| {
        let user = user.to_string();
        follower.wait_for(|line| {
            let at = line.find(&user);
            at.is_some_and(|at| {
                line[at + user.len()..]
                    .split(['|', '"'])
                    .any(|word| word == status)
            })
        });
    };
    says(users[0], "active");
    let second = sign_in(users[1]);
    says(users[1], "active");
    cut(database, role, || {
        sign_in(users[2]);
    });
    says(users[2], "active");
    service.end(second.id);
    says(users[1], "inactive");
}

/// The `follow` of an example, with the psql of this server.
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
fn psql_hears_of_what_happens_while_it_is_cut_off() {
    let database = served();
    cut_between_two_turns(&database, &database.service(), script(&database, "psql"));
}

#[test]
fn what_postgrest_makes_of_a_page_hears_of_what_happens_while_it_is_cut_off() {
    // Roles belong to the whole server.
    let cluster = Cluster::own(&[]);
    let database = cluster.database_with(Install::Not);
    set_up_for_postgrest(&database);
    cut_between_two_turns(&database, "authenticator", script(&database, "supabase"));
}
