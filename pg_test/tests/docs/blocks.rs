//! Runs the blocks of a page, in order, each as its reader would paste it.
//!
//! SQL goes to psql in a terminal, line by line, in a new connection unless the page says "Back in the first terminal".
//! What a comment announces after "-- → " has to be among the answers, and nothing may fail that is not announced so.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use pg_presence_test::{Cluster, Message, Shutdown, wait_until};
use serde_json::Value;

use crate::not_run;
use crate::page::{Block, Page};
use crate::terminal::Terminal;
use crate::world::{Role, World};

/// Runs every block of a page, or checks those that cannot be run as [`not_run`] declares.
pub fn run(page: &Page, world: &World) {
    let mut terminals = Terminals {
        first: None,
        second: None,
        role: Role::Login("app"),
    };
    let mut heading = "";
    // What the README begins with needs what it installs later.
    let (opening, rest): (Vec<_>, Vec<_>) = page.blocks.iter().partition(|block| block.heading == "pg_presence");
    for block in rest.into_iter().chain(opening) {
        if heading != block.heading {
            heading = &block.heading;
            (terminals.first, terminals.second) = (None, None);
        }
        if not_run::check(page, block) {
            continue;
        }
        println!("{}:{}", page.name, block.line);
        match block.language.as_str() {
            "sql" => terminals.run_sql(world, block),
            "sh" => terminals.run_shell(world, block),
            "ini" => run_configuration(block),
            "js" => run_in_a_page(world, block),
            "json" => assert_is_payload(block),
            other => panic!("{}:{}: nothing runs {other:?}", page.name, block.line),
        }
        world.settle();
    }
}

/// The terminals of a chapter.
struct Terminals {
    first: Option<Terminal>,
    /// Where the reader watches what the first one causes.
    second: Option<Terminal>,
    role: Role,
}

impl Terminals {
    fn run_sql(&mut self, world: &World, block: &Block) {
        if block.text.starts_with("-- as a superuser, on the hub\n") {
            return run_on_a_hub(world, block);
        }
        let goes_on = self.second.is_some() || block.lead.contains("in the same session");
        if !(goes_on && self.first.is_some()) {
            self.role = Role::of(block);
            self.first = Some(Terminal::psql(&world.environment(self.role)));
        }
        paste(self.first.as_mut().expect("a terminal"), &block.text, block.line);
        if let Some(second) = &mut self.second {
            for shown in block.follow.split("\"status\":").skip(1) {
                let status = shown.split('"').nth(1).expect("a status");
                second.wait_for(&format!("\"status\":\"{status}\""));
            }
        }
    }

    fn run_shell(&mut self, world: &World, block: &Block) {
        if block.lead.contains("second terminal") {
            let environment = world.environment(self.role);
            let mut shell = Terminal::new(&environment, "bash --norc --noprofile --noediting -i");
            for line in block.text.lines() {
                shell.type_line(line);
            }
            shell.wait_for("LISTEN");
            self.second = Some(shell);
            return;
        }
        let mut environment = world.environment(Role::of(block));
        environment.env("BLOCK", &block.text);
        let shown = Terminal::new(&environment, "bash -euo pipefail -c \"$BLOCK\"").end();
        assert!(failures(&shown).is_empty(), "line {}: {shown}", block.line);
    }
}

/// Types a block of SQL, and compares the answers with what the block announces.
fn paste(terminal: &mut Terminal, sql: &str, start: usize) {
    let mut is_open = false;
    for (number, line) in sql.lines().enumerate() {
        let (mut answer, asks_for_more) = terminal.ask(line);
        is_open = asks_for_more;
        if line.contains("presence_health()") && line.ends_with("(0 rows)") {
            // On a machine that is busy, the worker may be late when it is asked.
            wait_until(line, || {
                let is_well = answer.contains("(0 rows)");
                if !is_well {
                    answer = terminal.ask(line).0;
                }
                is_well
            });
        }
        let place = format!("line {}: {line}\n{answer}", start + 1 + number);
        let announced = line.split_once("-- → ").map(|(_, rest)| {
            let value = rest.split("  ").next().unwrap_or_default();
            value.trim().to_owned()
        });
        let failures = failures(&answer);
        match announced {
            Some(error) if error.starts_with("ERROR") => {
                assert!(failures.iter().any(|found| found.contains(&error)), "{place}");
            }
            Some(value) => {
                assert!(failures.is_empty(), "{place}");
                assert!(
                    answer.lines().any(|found| cells(found) == value),
                    "not {value:?}: {place}"
                );
            }
            None => assert!(failures.is_empty(), "{place}"),
        }
    }
    assert!(!is_open, "line {start}: the last statement is not complete");
}

/// A row of psql's output, with one space on either side of each separator.
fn cells(line: &str) -> String {
    line.split('|').map(str::trim).collect::<Vec<_>>().join(" | ")
}

/// The lines of an output that tell of a failure, with single spaces.
fn failures(output: &str) -> Vec<String> {
    let signs = [
        "ERROR:",
        "FATAL:",
        "WARNING:",
        "psql: error",
        "invalid command",
        "Segmentation",
        "not found",
    ];
    let lines = output
        .lines()
        .filter(|line| signs.iter().any(|sign| line.contains(sign)));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Makes another server the hub of this one, which is the edge "east", and has somebody sign in there.
fn run_on_a_hub(edge: &World, block: &Block) {
    let hub = World::installed();
    let host = edge.cluster.socket_directory().to_str().expect("UTF-8");
    let sql = block.text.replace("host=east.example", &format!("host={host}"));
    assert_ne!(sql, block.text);
    paste(
        &mut Terminal::psql(&hub.environment(Role::Login("postgres"))),
        &sql,
        block.line,
    );
    let (mut on_edge, mut on_hub) = (edge.connect(), hub.connect());
    on_edge
        .batch_execute("SELECT start_session(user_key => 'on the edge')")
        .unwrap();
    wait_until("the hub to show who is on the edge", || {
        let online = "SELECT is_online(presence_id('on the edge'))";
        on_hub.query_one(online, &[]).unwrap().get(0)
    });
    on_hub.batch_execute("DROP SUBSCRIPTION east").unwrap();
}

/// Starts a server with these lines at the end of its postgresql.conf.
fn run_configuration(block: &Block) {
    let cluster = Cluster::private(&[]);
    cluster.stop(Shutdown::Fast);
    let mut file = OpenOptions::new()
        .append(true)
        .open(cluster.data().join("postgresql.conf"))
        .expect("postgresql.conf");
    writeln!(file, "{}", block.text).expect("to write");
    cluster.start();
    let mut client = cluster.connect("postgres");
    let refused = "SELECT name || ': ' || coalesce(error, 'not applied') FROM pg_file_settings f
                   WHERE seqno = (SELECT max(seqno) FROM pg_file_settings s WHERE s.name = f.name)
                     AND (error IS NOT NULL OR NOT applied)";
    let refused: Vec<String> = client
        .query(refused, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(refused.is_empty(), "line {}: {refused:?}", block.line);
    client.batch_execute("CREATE EXTENSION pg_presence").unwrap();
}

/// Runs the code of a page that is being closed, whose requests PostgREST then serves as `anon`.
fn run_in_a_page(world: &World, block: &Block) {
    let mut client = world.connect();
    let start = "SELECT session_token FROM start_session(user_key => 'a page')";
    let token: String = client.query_one(start, &[]).unwrap().get(0);
    let page = "const token = process.argv[1]
        globalThis.addEventListener = (_, handler) => handler()
        globalThis.fetch = async (url, options) => console.log(JSON.stringify({ url, ...options }));";
    let node = Command::new("node")
        // A token may begin with a dash.
        .args(["--eval", &format!("{page}\n{}", block.text), "--", &token])
        .output()
        .expect("node");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    let request: Value = serde_json::from_slice(&node.stdout).expect("one request");
    // PostgREST looks for the function in the first schema that it exposes, unless this header names another.
    assert_eq!(request["headers"]["Content-Profile"], "presence", "{request}");
    let (_, function) = request["url"]
        .as_str()
        .unwrap()
        .rsplit_once("/rpc/")
        .expect("a function");
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    let arguments: Vec<String> = body
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name} => '{}'", value.as_str().unwrap()))
        .collect();
    client.batch_execute("SET ROLE anon").unwrap();
    let call = format!("SELECT presence.{function}({})", arguments.join(", "));
    assert!(client.query_one(&call, &[]).unwrap().get::<_, bool>(0), "{call}");
}

/// Parses the payload of a notification as the tests parse real ones, which refuses fields that they do not have.
fn assert_is_payload(block: &Block) {
    let message: Message =
        serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("line {}: {error}", block.line));
    assert!(message.prev < message.seq, "line {}", block.line);
}
