//! The server of examples/dashboard, as browsers and the database see it.

mod connecting;
mod cuts;
mod limits;
mod log;
mod sign_out;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use pg_presence_test::{Cluster, Database, Install, patience, wait_for, wait_until};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use crate::running::Running;
use crate::{CLIENTS, executable};

/// The first users of schema.sql.
const AMARA: &str = "00000000-0000-4000-8000-000000000001";
const BEN: &str = "00000000-0000-4000-8000-000000000002";

/// Returns where the program is built.
fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| executable("pg_presence_dashboard"));
    &PROGRAM
}

/// Installs schema.sql in a new database of a server, which must be the test's own, as roles belong to the whole server.
fn set_up(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database_with(Install::None);
    let schema = std::fs::read(format!("{CLIENTS}/../dashboard/schema.sql")).expect("schema.sql");
    let copy = cluster.socket_directory().join("schema.sql");
    std::fs::write(&copy, schema).expect("a copy");
    let done = cluster
        .program("psql", &database.name)
        .args(["-XAtq", "-v", "password=unused", "-f"])
        .arg(copy)
        .output()
        .expect("psql");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    database.wait_until_served();
    database
}

/// A running dashboard.
struct Dashboard {
    url: String,
    running: Running,
}

impl Dashboard {
    fn start(database: &Database) -> Dashboard {
        let host = database.cluster.socket_directory().display().to_string();
        Dashboard::start_with(database, &format!("host={host}"))
    }

    /// Starts it with this part of its connection string.
    fn start_with(database: &Database, server: &str) -> Dashboard {
        let url = format!("{server} user=dashboard dbname={}", database.name);
        Dashboard::start_at(&url, &[])
    }

    fn start_at(url: &str, environment: &[(&str, &str)]) -> Dashboard {
        let mut program = Command::new(program());
        program.env("DATABASE_URL", url).envs(environment.iter().copied());
        Dashboard::run(&mut program)
    }

    fn run(program: &mut Command) -> Dashboard {
        let running = Running::new(program.env("PORT", "0"));
        Dashboard {
            url: address(&running),
            running,
        }
    }

    /// Sends a request with a JSON body; without an answer it fails.
    fn post(&self, path: &str, cookie: &str, body: &Value) -> Response<ureq::Body> {
        let request = agent().post(format!("{}{path}", self.url));
        let request = request.header("Cookie", cookie).content_type("application/json");
        let answer = request.send(&body.to_string());
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Signs in, and returns the cookie.
    fn sign_in(&self, user: &str) -> String {
        let answer = self.post("/api/login", "", &json!({ "user_id": user }));
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()["set-cookie"].to_str().expect("ASCII");
        cookie.split(';').next().expect("a cookie").to_owned()
    }

    /// Starts a session, and returns its id and token.
    fn start_session(&self, cookie: &str) -> Value {
        let mut answer = self.post("/rpc/start_session", cookie, &json!({}));
        assert_eq!(answer.status(), 200);
        let body = answer.body_mut().read_to_string().expect("a body");
        serde_json::from_str(&body).expect("JSON")
    }

    fn heartbeat(&self, cookie: &str, session: &Value) -> Response<ureq::Body> {
        self.post(
            "/rpc/heartbeat",
            cookie,
            &json!({ "session_id": session["session_id"] }),
        )
    }

    /// Opens the stream, and waits until what it shows is up to date.
    fn stream(&self, cookie: &str) -> Stream {
        let stream = Stream::open(&format!("{}/api/events", self.url), cookie);
        stream.wait_until_shown("an up-to-date page", |_| true);
        stream
    }
}

/// Returns the address that the program prints.
fn address(running: &Running) -> String {
    let line = wait_for("the dashboard to listen", || {
        let mut lines = running.output().into_iter();
        lines.find(|line| line.starts_with("http://"))
    });
    line.replace("localhost", "127.0.0.1")
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(patience())).build().into()
}

/// A stream of server-sent events, closed when dropped.
struct Stream {
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    /// Names and data, since the last wait.
    events: Vec<(String, Value)>,
    /// What a page shows now.
    users: BTreeMap<String, Value>,
    is_live: bool,
    has_ended: bool,
}

impl Received {
    fn receive(&mut self, name: &str, data: Value) {
        let id = |user: &Value| user["id"].as_str().expect("an id").to_owned();
        match name {
            "users" => {
                let users = data["users"].as_array().expect("users");
                self.users = users.iter().map(|user| (id(user), user.clone())).collect();
                self.is_live = data["is_live"] == true;
            }
            "user" => drop(self.users.insert(id(&data), data.clone())),
            "disconnected" => self.is_live = false,
            _ => {}
        }
        self.events.push((name.to_owned(), data));
    }
}

impl Stream {
    fn open(url: &str, cookie: &str) -> Stream {
        let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(url).header("Cookie", cookie).call().expect("a stream");
        assert_eq!(answer.status(), 200);
        let lines = BufReader::new(answer.into_body().into_reader()).lines();
        let stream = Stream {
            received: Arc::default(),
        };
        let received = stream.received.clone();
        thread::spawn(move || {
            let mut name = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some(event) = line.strip_prefix("event: ") {
                    event.clone_into(&mut name);
                } else if let Some(data) = line.strip_prefix("data: ") {
                    let data = serde_json::from_str(data).expect("JSON");
                    received.lock().unwrap().receive(&name, data);
                }
                if Arc::strong_count(&received) == 1 {
                    return;
                }
            }
            received.lock().unwrap().has_ended = true;
        });
        stream
    }

    /// Waits for an event, and returns its data. What came before it is forgotten.
    fn wait_for(&self, what: &str, is_it: impl Fn(&str, &Value) -> bool) -> Value {
        wait_for(what, || {
            let events = &mut self.received.lock().unwrap().events;
            let at = events.iter().position(|(name, data)| is_it(name, data))?;
            events.drain(..=at).next_back().map(|(_, data)| data)
        })
    }

    /// Waits until a page is up to date and shows users of whom this holds.
    fn wait_until_shown(&self, what: &str, is_it: impl Fn(&BTreeMap<String, Value>) -> bool) {
        wait_until(what, || {
            let received = self.received.lock().unwrap();
            received.is_live && is_it(&received.users)
        });
    }

    fn has_ended(&self) -> bool {
        self.received.lock().unwrap().has_ended
    }

    fn wait_until_ended(&self) {
        wait_until("the stream to end", || self.has_ended());
    }
}
