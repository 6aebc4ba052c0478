//! Who is hidden cannot be told from who has signed out: two databases get the same calls, and where a user hides in one, all
//! of its sessions end in the other. Whatever a reader, a service's page or a listener can get is the same then.

use std::collections::HashMap;

use pg_presence_test::{Database, Listener, Presence, Rng, seed, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

const USERS: usize = 5;
const STEPS: usize = 60;
/// In hours.
const TIMEOUT: i64 = 5;

/// One of the two databases.
struct Twin<'a> {
    service: Client,
    listener: Listener,
    database: Database<'a>,
}

/// A user of both, and its sessions that have not ended.
struct User {
    id: Uuid,
    key: String,
    sessions: Vec<Session>,
    is_hidden: bool,
}

/// A session of both, or of the first alone, where its user is hidden.
struct Session {
    first: Uuid,
    second: Option<Uuid>,
    /// The hour of the last heartbeat.
    heard: i64,
    /// Whether it said that nobody is there.
    is_idle: bool,
}

impl Twin<'_> {
    fn call(&mut self, sql: &str) {
        self.service
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn start(&mut self, key: &str) -> Uuid {
        let sql = "SELECT session_id FROM presence.start_session(user_key => $1)";
        self.service.query_one(sql, &[&key]).expect("a session").get(0)
    }

    /// Everything that anybody can read of all users, but for ids and for times of which SQL's own clock is the source. Other
    /// times in hours of the server's clock.
    fn seen(&mut self, users: &[User]) -> Vec<String> {
        let columns = "user_key, status, is_online, floor(extract(epoch FROM last_seen) / 3600), session_count,
                       floor(extract(epoch FROM idle_since) / 3600), status_text, emoji,
                       floor(extract(epoch FROM status_expires_at) / 3600)";
        let ids: Vec<Uuid> = users.iter().map(|user| user.id).collect();
        let sql = format!(
            "SELECT format('of %s', (SELECT (row({columns}))::text))
                 FROM presence.presence_of($1) WITH ORDINALITY o
                      (user_id, user_key, status, is_online, last_seen, session_count, idle_since, status_text, emoji,
                       status_expires_at, n)
             UNION ALL SELECT format('online %s', row({columns})::text) FROM presence.online_users()
             UNION ALL SELECT format('one %s', row(n, presence.user_status(u), presence.is_online(u),
                           floor(extract(epoch FROM presence.last_seen(u)) / 3600))::text)
                 FROM unnest($1) WITH ORDINALITY x (u, n)
             UNION ALL SELECT format('count %s', presence.online_count())
             ORDER BY 1"
        );
        let rows = self.service.query(&sql, &[&ids]).expect("what is seen");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// What was written of all users, as far as it is not what readers are shown.
    fn unwritten(&mut self, users: &[User]) -> Vec<String> {
        let ids: Vec<Uuid> = users.iter().map(|user| user.id).collect();
        let sql = "SELECT format('%s %s', o.user_key, o.status)
                   FROM presence.presence_of($1) o LEFT JOIN presence.user_presence p USING (user_id)
                   WHERE (o.status, o.status_text, o.emoji, o.idle_since IS NULL, o.status_expires_at)
                       IS DISTINCT FROM (coalesce(p.status, 'inactive'), p.status_text, p.emoji, p.idle_since IS NULL,
                                         p.status_expires_at)
                   AND NOT (p.user_id IS NULL AND o.last_seen IS NULL)";
        let rows = self.service.query(sql, &[&ids]).expect("what is written");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The tables that readers can read, and what listeners were sent. Of two users who change at the same moment, either may be
    /// told first, so their changes are numbered apart.
    fn told(&mut self) -> Vec<String> {
        self.listener.receive();
        let sql = "SELECT format('change %s', row(row_number() OVER (PARTITION BY user_id ORDER BY seq), user_key, status,
                          previous, reason, details, floor(extract(epoch FROM last_seen) / 3600))::text)
                       FROM presence.presence_changes
                   UNION ALL
                   SELECT format('user %s', row(user_key, status, is_online, status_text, emoji,
                          floor(extract(epoch FROM last_seen) / 3600), floor(extract(epoch FROM idle_since) / 3600),
                          floor(extract(epoch FROM status_expires_at) / 3600))::text) FROM presence.user_presence
                   UNION ALL SELECT format('cursor %s', seq) FROM presence.presence_cursor()
                   UNION ALL SELECT format('stats %s', row(live_sessions, users_online)::text) FROM presence.presence_stats
                   ORDER BY 1";
        let rows = self.service.query(sql, &[]).expect("the tables");
        let mut numbers: HashMap<Option<String>, u32> = HashMap::new();
        let notified = self.listener.changes.iter().map(|change| {
            let number = numbers.entry(change.key.clone()).or_default();
            *number += 1;
            let last_seen = change.last_seen.map(|at| at.timestamp().div_euclid(3600));
            let (key, status) = (&change.key, &change.status);
            format!("notified {number} {key:?} {status} {} {last_seen:?}", change.details)
        });
        rows.iter().map(|row| row.get(0)).chain(notified).collect()
    }
}

/// What is in one of two lists only.
fn difference(one: Vec<String>, other: Vec<String>) -> [Vec<String>; 2] {
    let only = |these: &[String], those: &[String]| these.iter().filter(|it| !those.contains(it)).cloned().collect();
    [only(&one, &other), only(&other, &one)]
}

/// What happens next.
const STEPS_OF: &[&str] = &[
    "start", "start", "start", "beat", "beat", "idle", "idle", "end", "end all", "busy", "text", "clear", "hide",
    "hide", "hide for", "show", "show", "pass", "pass", "pass", "forget",
];

#[test]
fn who_is_hidden_cannot_be_told_from_who_has_signed_out() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let server = Server::with(&[
        ("presence.active_timeout", "5h"),
        ("presence.idle_timeout", "2h"),
        ("presence.retention", "8h"),
    ]);
    let mut twins = [0, 1].map(|_| {
        let database = server.cluster.database();
        Twin {
            service: database.connect(),
            listener: database.listen(),
            database,
        }
    });
    let mut users: Vec<User> = (0..USERS)
        .map(|n| {
            let key = format!("user {n}");
            let sql = "SELECT presence.presence_id($1::text)";
            User {
                id: twins[0].service.query_one(sql, &[&key]).expect("an id").get(0),
                key,
                sessions: Vec::new(),
                is_hidden: false,
            }
        })
        .collect();
    let mut done = Vec::new();
    for step in 0..STEPS {
        let what = *rng.pick(STEPS_OF);
        let n = rng.below(USERS as u64) as usize;
        done.push(format!("{step}: {what} {n}"));
        act(&mut twins, &server, &mut users, n, what, &mut rng);
        // At once, whatever the worker has come to.
        let [hides, ends] = &mut twins;
        assert_eq!(hides.seen(&users), ends.seen(&users), "SEED={seed}: {done:#?}");
        for (n, twin) in twins.iter_mut().enumerate() {
            let what = format!("what is still to be written by twin {n} (SEED={seed}: {done:#?})");
            wait_until_equal(&what, &Vec::new(), || twin.unwritten(&users));
        }
        let [hides, ends] = &mut twins;
        let what = format!("what only one of them has told (SEED={seed}: {done:#?})");
        wait_until_equal(&what, &Default::default(), || difference(hides.told(), ends.told()));
        assert_eq!(hides.seen(&users), ends.seen(&users), "SEED={seed}: {done:#?}");
    }
    for twin in &mut twins {
        twin.service.assert_no_gaps();
        twin.database.assert_served();
    }
}

fn act(twins: &mut [Twin; 2], server: &Server, users: &mut [User], n: usize, what: &str, rng: &mut Rng) {
    let now = server.hours.get();
    let user = &mut users[n];
    let session = (!user.sessions.is_empty()).then(|| rng.below(user.sessions.len() as u64) as usize);
    let declare = |twins: &mut [Twin; 2], user: &User, call: &str| {
        for twin in twins {
            twin.call(&format!("SELECT presence.{call}, user_id => '{}')", user.id));
        }
    };
    match what {
        "start" => {
            let first = twins[0].start(&user.key);
            let second = (!user.is_hidden).then(|| twins[1].start(&user.key));
            let heard = now;
            user.sessions.push(Session {
                first,
                second,
                heard,
                is_idle: false,
            });
        }
        "beat" | "idle" => {
            if let Some(at) = session {
                beat(twins, &mut user.sessions[at], what == "idle", now);
            }
        }
        "end" => {
            if let Some(at) = session {
                let session = user.sessions.remove(at);
                twins[0].service.end(session.first);
                session.second.map(|second| twins[1].service.end(second));
            }
        }
        "end all" => {
            for twin in twins {
                twin.call(&format!("SELECT presence.end_user_sessions('{}')", user.id));
            }
            user.sessions.clear();
        }
        "forget" => {
            for twin in twins {
                twin.call(&format!("SELECT presence.forget_user('{}')", user.id));
            }
            user.sessions.clear();
            user.is_hidden = false;
        }
        "busy" => declare(twins, user, "set_status('busy', expires_in => '4 h'"),
        "text" => declare(twins, user, "set_status(NULL, 'lunch', 'x', source => 'text'"),
        "clear" => declare(twins, user, "clear_status('text'"),
        "hide" | "hide for" => {
            let expires_in = if what == "hide" { "NULL" } else { "'3 h'" };
            for session in user.live(now) {
                beat(twins, session, false, now);
            }
            let id = user.id;
            twins[0].call(&format!("SELECT presence.set_invisible(true, {expires_in}, '{id}')"));
            twins[1].call(&format!("SELECT presence.end_user_sessions('{id}')"));
            user.sessions.iter_mut().for_each(|session| session.second = None);
            user.is_hidden = true;
        }
        "show" => {
            twins[0].call(&format!(
                "SELECT presence.set_invisible(false, user_id => '{}')",
                user.id
            ));
            come_back(twins, user, now);
        }
        _ => {
            server.pass(1);
            users
                .iter_mut()
                .for_each(|user| come_back(twins, user, server.hours.get()));
        }
    }
}

fn beat(twins: &mut [Twin; 2], session: &mut Session, is_idle: bool, now: i64) {
    session.heard = now;
    session.is_idle = is_idle;
    let function = if is_idle { "heartbeat_idle" } else { "heartbeat" };
    for (twin, id) in twins.iter_mut().zip([Some(session.first), session.second]) {
        if let Some(id) = id {
            twin.call(&format!("SELECT presence.{function}('{id}')"));
        }
    }
}

impl User {
    /// Its sessions that are live.
    fn live(&mut self, now: i64) -> impl Iterator<Item = &mut Session> {
        self.sessions
            .iter_mut()
            .filter(move |session| now - session.heard < TIMEOUT)
    }
}

/// Where a user is not hidden any more, the sessions start in the second that are live in the first. The others are left.
fn come_back(twins: &mut [Twin; 2], user: &mut User, now: i64) {
    let sql = "SELECT is_invisible, session_count FROM presence.own_presence($1)";
    let row = twins[0].service.query_one(sql, &[&user.id]).expect("the truth");
    assert_eq!(row.get::<_, i32>(1) as usize, user.live(now).count(), "live sessions");
    if user.is_hidden && !row.get::<_, bool>(0) {
        user.is_hidden = false;
        user.sessions.retain(|session| now - session.heard < TIMEOUT);
        for session in &mut user.sessions {
            // To others, it starts now.
            session.heard = now;
            let second = twins[1].start(&user.key);
            if session.is_idle {
                twins[1].call(&format!("SELECT presence.heartbeat_idle('{second}')"));
            }
            session.second = Some(second);
        }
    }
}
