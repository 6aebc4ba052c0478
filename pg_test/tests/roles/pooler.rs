//! PgBouncer in transaction mode: clients of many identities share a few connections.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pg_presence_test::{Cluster, Pooler, Presence, Rng, StopOnDrop, report, soak, wait_until};
use postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

const CLIENTS: u64 = 50;
const CONNECTIONS: u32 = 5;

/// Returns the last value of the last statement; empty for NULL.
fn query(client: &mut Client, sql: &str) -> String {
    let messages = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let values = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    values.last().unwrap_or_default().to_owned()
}

/// A client whose requests are separate transactions, each of which sets its identity.
struct PooledClient<'a> {
    client: Client,
    me: Uuid,
    /// The SQL that sets it.
    claim: String,
    session: Option<String>,
    everybody: &'a Mutex<BTreeMap<Uuid, String>>,
    rng: Rng,
}

impl<'a> PooledClient<'a> {
    fn new(client: Client, n: u64, everybody: &'a Mutex<BTreeMap<Uuid, String>>) -> PooledClient<'a> {
        let me = Uuid::new_v4();
        let claim = if n.is_multiple_of(2) {
            format!("SET LOCAL request.jwt.claims = '{{\"sub\":\"{me}\"}}'")
        } else {
            // The claims have to be cleared, as others may leave theirs.
            format!("SET LOCAL request.jwt.claims = ''; SET LOCAL presence.user_id = '{me}'")
        };
        PooledClient {
            client,
            me,
            claim,
            session: None,
            everybody,
            rng: Rng::new(n),
        }
    }

    /// Makes this many visits. A rude client leaves its claims to the session.
    fn visit_repeatedly(&mut self, visits: u64, is_rude: bool, one_is_rude: bool) {
        for _ in 0..visits {
            if is_rude {
                let sql = format!("SET request.jwt.claims = '{{\"sub\":\"{}\"}}'", self.me);
                query(&mut self.client, &sql);
            }
            self.visit();
            if !one_is_rude {
                // A request that sets no identity has none.
                let sql = "SELECT presence.presence_auth_id()";
                assert_eq!(query(&mut self.client, sql), "");
            }
        }
    }

    /// One request.
    fn request(&mut self, sql: &str) -> String {
        query(&mut self.client, &format!("BEGIN; {}; {sql}; COMMIT", self.claim))
    }

    fn visit(&mut self) {
        assert_eq!(self.request("SELECT presence.presence_auth_id()"), self.me.to_string());
        let own = match self.session.clone() {
            Some(own) => own,
            None => {
                let own = self.request("SELECT session_id FROM presence.start_session()");
                self.everybody.lock().unwrap().insert(self.me, own.clone());
                self.session.insert(own).clone()
            }
        };
        assert_eq!(self.request(&format!("SELECT presence.heartbeat('{own}')")), "ok");
        let foreign = "SELECT count(*) FROM presence.user_sessions WHERE auth_id <> presence.presence_auth_id()";
        assert_eq!(self.request(foreign), "0");
        let other = {
            let everybody = self.everybody.lock().unwrap();
            everybody
                .iter()
                .map(|(user, id)| (*user, id.clone()))
                .nth(self.rng.below(everybody.len() as u64) as usize)
        };
        if let Some((_, id)) = other.filter(|(user, _)| *user != self.me) {
            assert_eq!(self.request(&format!("SELECT presence.heartbeat('{id}')")), "unknown");
            assert_eq!(self.request(&format!("SELECT presence.end_session('{id}')")), "f");
        }
        if self.rng.below(4) == 0 {
            assert_eq!(self.request(&format!("SELECT presence.end_session('{own}')")), "t");
            assert_eq!(self.request(&format!("SELECT presence.heartbeat('{own}')")), "ended");
            self.session = None;
        }
    }
}

/// Follows the feed from a number on by polling, until `stop` is set and it has read everything; returns the numbers it has
/// read.
fn poll(mut client: Client, epoch: &str, mut seq: i64, stop: &AtomicBool) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let stopped = stop.load(Ordering::Acquire);
        let sql =
            format!("SELECT string_agg(seq::text, ',' ORDER BY seq) FROM presence.changes_since({seq}, '{epoch}', 7)");
        let changes = query(&mut client, &sql);
        if changes.is_empty() && stopped {
            return seen;
        }
        seen.extend(changes.split(',').filter_map(|seq| seq.parse::<i64>().ok()));
        seq = *seen.last().unwrap_or(&seq);
    }
}

#[test]
fn through_a_pooler_identities_stay_apart_and_no_change_is_missed() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let (role, reader) = (database.client(), database.reader());
    let pooler = Pooler::new(&cluster, CONNECTIONS, &[&role, &reader]);
    let everybody = Mutex::new(BTreeMap::new());
    let stop = AtomicBool::new(false);
    let (epoch, first) = database.cursor();
    let visits: u64 = if soak() { 2_000 } else { 25 };
    let (online, polled) = thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let pollers: Vec<_> = (0..3)
            .map(|_| {
                let client = pooler.connect_as(&database.name, &reader);
                scope.spawn(|| poll(client, &epoch, first, &stop))
            })
            .collect();
        let mut pooled_clients: Vec<PooledClient> = (0..CLIENTS)
            .map(|n| PooledClient::new(pooler.connect_as(&database.name, &role), n, &everybody))
            .collect();
        // In the second round one client leaves its claims to all that use the same connection after it.
        for one_is_rude in [false, true] {
            thread::scope(|scope| {
                for (n, pooled_client) in pooled_clients.iter_mut().enumerate() {
                    scope.spawn(move || pooled_client.visit_repeatedly(visits, one_is_rude && n == 0, one_is_rude));
                }
            });
        }
        let online: Vec<(Uuid, bool)> = pooled_clients
            .iter()
            .map(|pooled_client| (pooled_client.me, pooled_client.session.is_some()))
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
        let polled: Vec<Vec<i64>> = pollers.into_iter().map(|poller| poller.join().unwrap()).collect();
        (online, polled)
    });
    let last = database.cursor().1;
    for seen in &polled {
        assert!(
            seen.iter().copied().eq(first + 1..=last),
            "a change was missed, or read twice: {seen:?}"
        );
    }
    report(&format!(
        "{} clients on {CONNECTIONS} connections, {} visits, {} changes read by each of {} pollers",
        online.len(),
        CLIENTS * visits * 2,
        last - first,
        polled.len()
    ));
}
