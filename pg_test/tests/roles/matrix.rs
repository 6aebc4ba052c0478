//! The whole matrix: role × function × row, and role × command × table or row, as real logins. The expected results are in
//! [`contract`](crate::contract). The client takes part twice: with an identity and without.

use std::collections::BTreeSet;

use pg_presence_test::{Cluster, Presence, report};
use postgres::Client;
use uuid::Uuid;

use crate::contract::{CALLS, DENIED, ON_A_ROW, ON_A_TABLE};
use crate::login::{Login, ROWS, Row, data, fill, logins};

/// Calls every function about own and others' sessions in these states, and compares the results with the contract. Returns
/// the number of calls.
pub fn check_calls(login: &mut Login, service: &mut Client, rows: &[Row]) -> u32 {
    let mut combinations = 0;
    for (call, who, answers, foreign) in CALLS {
        for (row, answer) in ROWS.iter().zip(answers).filter(|(row, _)| rows.contains(row)) {
            for own in [true, false] {
                let (me, user) = (Uuid::new_v4(), Uuid::new_v4());
                let session = row.insert(service, user);
                login.act_for(if own { user } else { me });
                // A function about a user needs no session to be about the caller.
                let is_own = own && login.has_identity && (*row != Row::Unknown || call.contains("{user}"));
                let expected = match login.scope(who) {
                    '-' => DENIED,
                    'o' if !is_own && !call.starts_with("presence_") => foreign,
                    'o' if !is_own => continue,
                    _ if call.contains("OPERATOR") && !own => continue,
                    _ => answer,
                };
                let sql = fill(&format!("SELECT presence.{call}"), &session, user);
                let before = data(service, &session);
                let answer = login.run(&sql, true);
                let answer = match answer.as_str() {
                    "t" => "true",
                    "f" => "false",
                    other => other,
                };
                let what = format!("{} ({own}, {row:?}): {sql}", login.role);
                assert_eq!(answer, fill(expected, &session, user), "{what}");
                assert_eq!(data(service, &session), before, "{what}");
                combinations += 1;
            }
        }
    }
    combinations
}

#[test]
fn every_function_answers_every_role_about_every_row_as_documented() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    let mut logins = logins(&database);
    let combinations: u32 = logins
        .iter_mut()
        .map(|login| check_calls(login, &mut service, &ROWS))
        .sum();
    report(&format!("{combinations} combinations of role, function and row"));

    let named: BTreeSet<&str> = CALLS.iter().filter_map(|(call, ..)| call.split('(').next()).collect();
    let sql = "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'presence'::regnamespace";
    for row in service.query(sql, &[]).unwrap() {
        assert!(named.contains(row.get::<_, &str>(0)), "not in the matrix: {row:?}");
    }
}

#[test]
fn every_command_on_a_row_does_what_the_role_may() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut combinations = 0;
    for login in &mut logins(&database) {
        for (command, who, on_own, on_foreign) in ON_A_ROW {
            for row in &ROWS[..3] {
                for own in [true, false] {
                    let user = Uuid::new_v4();
                    let session = row.insert(&mut service, user);
                    login.act_for(if own { user } else { Uuid::new_v4() });
                    let expected = match login.scope(who) {
                        '-' => DENIED,
                        'o' if own && login.has_identity => on_own,
                        'o' => on_foreign,
                        _ => "1",
                    };
                    let sql = fill(command, &session, user);
                    let before = data(&mut service, &session);
                    assert_eq!(
                        login.run(&sql, false),
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
    report(&format!("{combinations} combinations of role, command and row"));
}

#[test]
fn every_command_on_a_table_is_denied_to_every_role_that_may_not() {
    let database = Cluster::shared().database();
    let mut combinations = 0;
    for login in &mut logins(&database) {
        login.act_for(Uuid::new_v4());
        for (command, who) in ON_A_TABLE {
            let answer = login.run(command, false);
            let denied = login.scope(who) == '-';
            assert_eq!(answer == DENIED, denied, "{}: {command}: {answer}", login.role);
            assert!(
                denied || !answer.starts_with('!'),
                "{}: {command}: {answer}",
                login.role
            );
            combinations += 1;
        }
    }
    report(&format!("{combinations} combinations of role and command"));
}
