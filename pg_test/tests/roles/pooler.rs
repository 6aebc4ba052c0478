//! PgBouncer in transaction mode: clients of many identities take turns on a few connections.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pg_presence_test::{Cluster, Dice, Pooler, Presence, Stop, figure, soak, wait_until};
use postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

const CLIENTS: u64 = 50;
const CONNECTIONS: u32 = 5;

/// The one value that a statement answers, of the last of several; empty for NULL.
fn ask(client: &mut Client, sql: &str) -> String {
    let messages = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let values = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    values.last().unwrap_or_default().to_owned()
}

/// One client, whose requests are transactions of their own, each of which says who it is for.
struct Visitor<'a> {
    client: Client,
    me: Uuid,
    /// What says so.
    claim: String,
    session: Option<String>,
    everybody: &'a Mutex<BTreeMap<Uuid, String>>,
    dice: Dice,
}

impl<'a> Visitor<'a> {
    fn new(client: Client, n: u64, everybody: &'a Mutex<BTreeMap<Uuid, String>>) -> Visitor<'a> {
        let me = Uuid::new_v4();
        let claim = if n.is_multiple_of(2) {
            format!("SET LOCAL request.jwt.claims = '{{\"sub\":\"{me}\"}}'")
        } else {
            // As one has to where others leave claims.
            format!("SET LOCAL request.jwt.claims = ''; SET LOCAL presence.user_id = '{me}'")
        };
        Visitor {
            client,
            me,
            claim,
            session: None,
            everybody,
            dice: Dice::new(n),
        }
    }

    /// Visits again and again.
    fn stay(&mut self, visits: u64, is_rude: bool, one_is_rude: bool) {
        for _ in 0..visits {
            if is_rude {
                let sql = format!("SET request.jwt.claims = '{{\"sub\":\"{}\"}}'", self.me);
                ask(&mut self.client, &sql);
            }
            self.visit();
            if !one_is_rude {
                // Without a word about who it is, a request is nobody's.
                let sql = "SELECT presence.presence_auth_id()";
                assert_eq!(ask(&mut self.client, sql), "");
            }
        }
    }

    /// One request.
    fn ask(&mut self, sql: &str) -> String {
        ask(
            &mut self.client,
            &format!("BEGIN; {}; {sql}; COMMIT", self.claim),
        )
    }

    fn visit(&mut self) {
        assert_eq!(
            self.ask("SELECT presence.presence_auth_id()"),
            self.me.to_string()
        );
        let own = match self.session.clone() {
            Some(own) => own,
            None => {
                let own = self.ask("SELECT session_id FROM presence.start_session()");
                self.everybody.lock().unwrap().insert(self.me, own.clone());
                self.session.insert(own).clone()
            }
        };
        assert_eq!(
            self.ask(&format!("SELECT presence.heartbeat('{own}')")),
            "ok"
        );
        let foreign = "SELECT count(*) FROM presence.user_sessions WHERE auth_id <> presence.presence_auth_id()";
        assert_eq!(self.ask(foreign), "0");
        let other = {
            let everybody = self.everybody.lock().unwrap();
            everybody
                .iter()
                .map(|(user, id)| (*user, id.clone()))
                .nth(self.dice.roll(everybody.len() as u64) as usize)
        };
        if let Some((_, id)) = other.filter(|(user, _)| *user != self.me) {
            assert_eq!(
                self.ask(&format!("SELECT presence.heartbeat('{id}')")),
                "unknown"
            );
            assert_eq!(
                self.ask(&format!("SELECT presence.end_session('{id}')")),
                "f"
            );
        }
        if self.dice.roll(4) == 0 {
            assert_eq!(
                self.ask(&format!("SELECT presence.end_session('{own}')")),
                "t"
            );
            assert_eq!(
                self.ask(&format!("SELECT presence.heartbeat('{own}')")),
                "ended"
            );
            self.session = None;
        }
    }
}

/// Follows the feed from a number on by polling, until it is told to stop and has read all there is; returns the numbers
/// it has read.
fn poll(mut client: Client, epoch: &str, mut seq: i64, stop: &AtomicBool) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let stopped = stop.load(Ordering::Acquire);
        let sql = format!(
            "SELECT string_agg(seq::text, ',' ORDER BY seq) FROM presence.changes_since({seq}, '{epoch}', 7)"
        );
        let changes = ask(&mut client, &sql);
        if changes.is_empty() && stopped {
            return seen;
        }
        seen.extend(changes.split(',').filter_map(|seq| seq.parse::<i64>().ok()));
        seq = *seen.last().unwrap_or(&seq);
    }
}

#[test]
fn through_a_pooler_nobody_is_taken_for_another_and_no_change_is_missed() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let (role, reader) = (database.client(), database.reader());
    let pooler = Pooler::new(&cluster, CONNECTIONS, &[&role, &reader]);
    let everybody = Mutex::new(BTreeMap::new());
    let stop = AtomicBool::new(false);
    let (epoch, first) = database.cursor();
    let visits: u64 = if soak() { 2_000 } else { 25 };
    let (online, polled) = thread::scope(|scope| {
        let stopping = Stop(&stop);
        let pollers: Vec<_> = (0..3)
            .map(|_| {
                let client = pooler.connect_as(&database.name, &reader);
                scope.spawn(|| poll(client, &epoch, first, &stop))
            })
            .collect();
        let mut visitors: Vec<Visitor> = (0..CLIENTS)
            .map(|n| Visitor::new(pooler.connect_as(&database.name, &role), n, &everybody))
            .collect();
        // Then one leaves its claims to all who come after it on the same connection.
        for one_is_rude in [false, true] {
            thread::scope(|scope| {
                for (n, visitor) in visitors.iter_mut().enumerate() {
                    scope.spawn(move || visitor.stay(visits, one_is_rude && n == 0, one_is_rude));
                }
            });
        }
        let online: Vec<(Uuid, bool)> = visitors
            .iter()
            .map(|visitor| (visitor.me, visitor.session.is_some()))
            .collect();
        let mut service = database.connect();
        for (user, is_online) in &online {
            assert_eq!(service.is_online(*user), *is_online);
        }
        wait_until("everybody is written", || {
            online
                .iter()
                .all(|(user, is_online)| service.written(*user) == Some(*is_online))
        });
        drop(stopping);
        let polled: Vec<Vec<i64>> = pollers
            .into_iter()
            .map(|poller| poller.join().unwrap())
            .collect();
        (online, polled)
    });
    let last = database.cursor().1;
    for seen in &polled {
        assert!(
            seen.iter().copied().eq(first + 1..=last),
            "a change was missed, or read twice: {seen:?}"
        );
    }
    figure(&format!(
        "{} clients on {CONNECTIONS} connections, {} visits, {} changes read by each of {} pollers",
        online.len(),
        CLIENTS * visits * 2,
        last - first,
        polled.len()
    ));
}
