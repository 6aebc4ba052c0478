//! The whole matrix: role × function × row, and role × command × table or row, as real logins. What is right is in
//! [`contract`](crate::contract). Every client asks twice: with an identity and without.

use std::collections::BTreeSet;

use pg_presence_test::{Cluster, Database, Presence, Session, figure};
use postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use crate::contract::{CALLS, DENIED, ON_A_ROW, ON_A_TABLE};

/// One role, logged in.
struct Login {
    role: String,
    /// Its column in the tables above.
    column: usize,
    has_identity: bool,
    client: Client,
}

impl Login {
    /// The letter for this role.
    fn scope(&self, who: &str) -> char {
        char::from(who.as_bytes()[self.column])
    }

    /// Acts for this user from now on, where the role has an identity.
    fn turn_to(&mut self, user: Uuid) {
        if self.has_identity {
            self.client.act_for(user);
        }
    }

    /// The one value or the number of rows that a statement answers, or its error's code after a `!`. Nothing of it
    /// lasts, but for heartbeats.
    fn ask(&mut self, sql: &str, wants_value: bool) -> String {
        let mut transaction = self.client.transaction().expect("a transaction");
        let messages = match transaction.simple_query(sql) {
            Ok(messages) => messages,
            Err(error) => return format!("!{}", error.code().expect("the server's answer").code()),
        };
        let mut value = None;
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) if wants_value => {
                    value = Some(row.get(0).unwrap_or("NULL").to_owned());
                }
                SimpleQueryMessage::CommandComplete(rows) if !wants_value => {
                    value = Some(rows.to_string());
                }
                _ => {}
            }
        }
        value.unwrap_or_else(|| panic!("no answer to {sql}"))
    }
}

fn logins(database: &Database) -> Vec<Login> {
    let bypass = database.client();
    let monitor = database.role("monitor");
    database.run(&format!(
        "ALTER ROLE {bypass} BYPASSRLS; GRANT pg_monitor TO {monitor}"
    ));
    let client = database.client();
    let roles = [
        (database.role("nobody"), 0, true),
        (database.holder(), 1, true),
        (client.clone(), 2, true),
        (client, 2, false),
        (database.reader(), 3, true),
        (database.service(), 4, true),
        (bypass, 5, true),
        (monitor, 6, true),
    ];
    roles
        .into_iter()
        .map(|(role, column, has_identity)| {
            let mut client = database.connect_as(&role);
            client
                .batch_execute("SET search_path = presence, pg_temp")
                .unwrap();
            Login {
                role,
                column,
                has_identity,
                client,
            }
        })
        .collect()
}

/// A session of a new user, with what a function could be asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Row {
    Live,
    Silent,
    Ended,
    /// There is none.
    Unknown,
}

const ROWS: [Row; 4] = [Row::Live, Row::Silent, Row::Ended, Row::Unknown];

impl Row {
    fn make(self, service: &mut Client, user: Uuid) -> Session {
        let token = format!("the token of {}", Uuid::new_v4());
        let values = match self {
            Row::Unknown => {
                return Session {
                    id: Uuid::new_v4(),
                    token,
                };
            }
            Row::Live => "true, now(), NULL",
            Row::Silent => "false, now() - interval '1 hour', NULL",
            Row::Ended => "false, now() - interval '1 hour', now()",
        };
        let sql = format!(
            "INSERT INTO presence.user_sessions (user_id, session_token, is_active, last_activity, ended_at)
             SELECT $1, $2, {values} RETURNING id"
        );
        let id = service.query_one(&sql, &[&user, &token]).unwrap().get(0);
        Session { id, token }
    }
}

/// A statement with a session filled in.
fn fill(text: &str, session: &Session, user: Uuid) -> String {
    text.replace("{id}", &session.id.to_string())
        .replace("{token}", &session.token)
        .replace("{user}", &user.to_string())
}

/// All of a row that is data, and not only liveness.
fn data(service: &mut Client, session: &Session) -> Option<String> {
    let sql =
        "SELECT row(id, user_id, auth_id, session_token, ended_at, expires_at, metadata)::text
                 FROM presence.user_sessions WHERE id = $1";
    let row = service.query_opt(sql, &[&session.id]).unwrap();
    row.map(|row| row.get(0))
}

#[test]
fn every_function_answers_every_role_about_every_row_as_the_contract_says() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    let mut combinations = 0;
    for login in &mut logins(&database) {
        for (call, who, answers, foreign) in CALLS {
            for (row, answer) in ROWS.iter().zip(answers) {
                for own in [true, false] {
                    let (me, user) = (Uuid::new_v4(), Uuid::new_v4());
                    let session = row.make(&mut service, user);
                    login.turn_to(if own { user } else { me });
                    let is_own = own && login.has_identity && *row != Row::Unknown;
                    // A start needs no session to be one's own business, only oneself.
                    let is_own = is_own || (own && login.has_identity && call.contains("{user}"));
                    let expected = match login.scope(who) {
                        '-' => DENIED,
                        'o' if !is_own && !call.starts_with("presence_") => foreign,
                        'o' if !is_own => continue,
                        _ if call.contains("= '{user}'") && !own => continue,
                        _ => answer,
                    };
                    let sql = fill(&format!("SELECT presence.{call}"), &session, user);
                    let before = data(&mut service, &session);
                    let answer = login.ask(&sql, true);
                    let answer = match answer.as_str() {
                        "t" => "true",
                        "f" => "false",
                        other => other,
                    };
                    let what = format!("{} ({own}, {row:?}): {sql}", login.role);
                    assert_eq!(answer, fill(expected, &session, user), "{what}");
                    assert_eq!(data(&mut service, &session), before, "{what}");
                    combinations += 1;
                }
            }
        }
    }
    figure(&format!(
        "{combinations} combinations of role, function and row"
    ));

    let named: BTreeSet<&str> = CALLS
        .iter()
        .filter_map(|(call, ..)| call.split('(').next())
        .collect();
    let sql =
        "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'presence'::regnamespace";
    for row in service.query(sql, &[]).unwrap() {
        assert!(
            named.contains(row.get::<_, &str>(0)),
            "not in the matrix: {row:?}"
        );
    }
}

#[test]
fn every_command_does_to_every_row_what_the_role_may() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut combinations = 0;
    for login in &mut logins(&database) {
        for (command, who, on_own, on_foreign) in ON_A_ROW {
            for row in &ROWS[..3] {
                for own in [true, false] {
                    let user = Uuid::new_v4();
                    let session = row.make(&mut service, user);
                    login.turn_to(if own { user } else { Uuid::new_v4() });
                    let expected = match login.scope(who) {
                        '-' => DENIED,
                        'o' if own && login.has_identity => on_own,
                        'o' => on_foreign,
                        _ => "1",
                    };
                    let sql = fill(command, &session, user);
                    let before = data(&mut service, &session);
                    assert_eq!(
                        login.ask(&sql, false),
                        *expected,
                        "{} ({own}, {row:?}): {sql}",
                        login.role
                    );
                    assert_eq!(data(&mut service, &session), before, "{sql}");
                    combinations += 1;
                }
            }
        }
    }
    figure(&format!(
        "{combinations} combinations of role, command and row"
    ));
}

#[test]
fn every_command_on_a_table_is_denied_to_every_role_that_may_not() {
    let database = Cluster::shared().database();
    let mut combinations = 0;
    for login in &mut logins(&database) {
        login.turn_to(Uuid::new_v4());
        for (command, who) in ON_A_TABLE {
            let answer = login.ask(command, false);
            let denied = login.scope(who) == '-';
            assert_eq!(
                answer == DENIED,
                denied,
                "{}: {command}: {answer}",
                login.role
            );
            assert!(
                denied || !answer.starts_with('!'),
                "{}: {command}: {answer}",
                login.role
            );
            combinations += 1;
        }
    }
    figure(&format!("{combinations} combinations of role and command"));
}
