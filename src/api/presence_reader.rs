//! Reads presence from the roster, and from the table where the roster may not know every session.
//!
//! Of a session that the roster knows, the roster alone decides whether it is live, as the table lags behind. Sessions
//! that it does not know are read from the table, unless the roster was complete when the reader began. A standby has
//! no roster and reads the table alone. The table of sessions does not say who is idle: of users whose sessions are read
//! there, `user_presence` does, unless the roster is in overflow, when somebody may have been heard from of whom only the
//! table was told. What is declared of users is in its own table alone; [`shown`] decides what shows.

use std::{collections::HashMap, thread::LocalKey};

use pgrx::{check_for_interrupts, pg_sys};
use uuid::Uuid;

use crate::{
    pg::{
        compat, errors, fault_point,
        memory::{self, Reserve},
        text::EncodedText,
    },
    roster::{self, Key, Now, Tenant, UserView},
    rules::{declared::shown, status::Status, time::Micros},
    settings,
    store::{
        declared::{self, Declared},
        load,
        rows::{Row, Rows},
        statement::{Snapshot, Statement},
        value::Value,
    },
};

/// Of more users than these, what is declared is read from the whole table.
const MAX_BY_KEY: usize = 1000;

/// The live sessions of one user.
#[derive(Default)]
pub struct LiveSessions {
    pub sessions: u32,
    pub last_activity: Option<Micros>,
    /// When somebody was last at one of them, if all are idle.
    pub idle_since: Option<Micros>,
    /// The user's key, where it has been read from the table.
    pub user_key: Option<EncodedText>,
    /// Whether the user has a key that cannot be derived from its id.
    pub keyed: bool,
}

impl LiveSessions {
    /// Returns the live sessions that the roster knows of a user; `None` where there are none.
    fn from_roster(user: UserView) -> Option<LiveSessions> {
        (user.live_sessions > 0).then_some(LiveSessions {
            sessions: user.live_sessions,
            last_activity: user.last_activity,
            idle_since: user.idle_since,
            user_key: None,
            keyed: user.keyed,
        })
    }

    /// Returns what the sessions make of the user, who is online.
    pub fn status(&self) -> Status {
        match self.idle_since {
            Some(_) => Status::Idle,
            None => Status::Active,
        }
    }

    /// Adds the live sessions that only the table has.
    fn merge(&mut self, in_table: LiveSessions) {
        self.idle_since = match (self.sessions, in_table.sessions) {
            (0, _) => in_table.idle_since,
            (_, 0) => self.idle_since,
            _ => self
                .idle_since
                .zip(in_table.idle_since)
                .map(|(here, there)| here.max(there)),
        };
        // A session may enter the roster between the two reads; then neither counts it.
        self.sessions = (self.sessions + in_table.sessions).max(1);
        self.last_activity = self.last_activity.max(in_table.last_activity);
        self.user_key = self.user_key.take().or(in_table.user_key);
    }
}

/// What is known of a user besides live sessions.
pub struct StoredPresence {
    pub user_key: Option<EncodedText>,
    pub last_seen: Option<Micros>,
}

/// Reads presence as of one point in time.
pub struct PresenceReader {
    now: Now,
    timeout: Micros,
    /// `None` on a standby.
    tenant: Option<Tenant>,
    /// Whether the roster was complete when the reader began.
    complete: bool,
}

thread_local! {
    /// The sessions of some users that are live by the table. The condition on ended_at is written so that it does not
    /// match the partial index on tokens, which the planner would prefer: it takes that for small until the table is
    /// analyzed.
    static FIND_LIVE_OF_USERS: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, last_activity, user_key FROM {s}.user_sessions \
             WHERE is_active AND (ended_at IS NULL) = is_active AND expires_at > $1 \
             AND last_activity > $2 AND user_id = ANY ($3)"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID],
    ) };
    /// The sessions of all users that are live by the table.
    static FIND_LIVE: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, last_activity, user_key FROM {s}.user_sessions \
             WHERE is_active AND ended_at IS NULL AND expires_at > $1 AND last_activity > $2"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    /// The sessions of some users that the worker loads as live after a crash, although the table has them timed out: their
    /// users are online by `user_presence`, and none of their sessions has ended since.
    static FIND_RESUMED_OF_USERS: Statement = const { Statement::new(
        |s| find_resumed(s, "AND p.user_id = ANY ($3)"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID],
    ) };
    /// The same of all users.
    static FIND_RESUMED: Statement = const { Statement::new(
        |s| find_resumed(s, ""),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    /// The keys and last activity of some users in both tables, in the order of the array. Of the sessions that have
    /// ended, only those can have the newest activity that ended after the last activity of the one that ended last, as
    /// no session is active after its end. The order of the others is that of the index on users, which the planner
    /// would otherwise not prefer to the partial index on tokens.
    static FIND_STORED: Statement = const { Statement::new(
        |s| format!(
            "SELECT COALESCE(p.user_key, s.user_key), greatest(p.last_seen, s.last_activity) \
             FROM unnest($1) WITH ORDINALITY u (id, n) \
             LEFT JOIN {s}.user_presence p ON p.user_id = u.id \
             LEFT JOIN LATERAL (SELECT max(c.user_key) AS user_key, max(c.last_activity) AS last_activity FROM (\
             (SELECT user_key, last_activity FROM {s}.user_sessions \
             WHERE user_id = u.id AND ended_at IS NULL ORDER BY ended_at) \
             UNION ALL SELECT user_key, last_activity FROM {s}.user_sessions \
             WHERE user_id = u.id AND ended_at >= (SELECT last_activity FROM {s}.user_sessions \
             WHERE user_id = u.id AND ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT 1)) c) s ON true \
             ORDER BY u.n"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
}

fn find_resumed(schema: &str, users: &str) -> String {
    format!(
        "SELECT s.id, s.user_id, s.last_activity, s.user_key \
         FROM {schema}.user_presence p JOIN {schema}.user_sessions s ON s.user_id = p.user_id \
         WHERE p.is_online {users} AND NOT s.is_active AND s.ended_at IS NULL AND s.expires_at > $1 \
         AND NOT EXISTS (SELECT FROM {schema}.user_sessions e WHERE e.user_id = p.user_id AND e.ended_at >= $2)"
    )
}

impl PresenceReader {
    /// Returns a reader as of now. Errors: 55000 where the library is not preloaded or the extension not installed.
    #[inline]
    pub fn begin() -> PresenceReader {
        if !settings::is_preloaded() {
            errors::not_preloaded();
        }
        let timeout = settings::active_timeout();
        if compat::in_recovery() {
            return PresenceReader {
                now: roster::synchronize_clock(),
                timeout,
                tenant: None,
                complete: false,
            };
        }
        let tenant = roster::tenant();
        // Read before any session is looked up: a session that is loaded meanwhile is found in the roster.
        let complete = tenant.is_complete();
        PresenceReader {
            now: match complete {
                true => tenant.now(),
                false => {
                    // The tables have the time of day, and know of no standstill.
                    tenant.note_standstill();
                    tenant.synchronize_clock()
                }
            },
            timeout,
            tenant: Some(tenant),
            complete,
        }
    }

    /// Returns whether a user has a live session.
    #[inline]
    pub fn is_online(&self, user_id: Uuid) -> bool {
        self.tenant
            .is_some_and(|tenant| tenant.is_online(&user_id, &self.now, self.timeout))
            || !self.complete && self.live_in_table(&[user_id]).contains_key(&user_id)
    }

    /// Returns a user's status.
    #[inline]
    pub fn status(&self, user_id: Uuid) -> Status {
        let by_sessions = match self.tenant {
            Some(tenant) if self.complete => tenant.user_status(&user_id, &self.now, self.timeout),
            _ => self
                .live(user_id)
                .map_or(Status::Inactive, |live: LiveSessions| live.status()),
        };
        // Of who is offline, nothing that is declared changes the status.
        if !by_sessions.is_online() || !self.may_have_declared() {
            return by_sessions;
        }
        let declared = self.declared_of(&[user_id]).remove(&user_id);
        shown(by_sessions, declared.unwrap_or_default()).status
    }

    /// Returns what is declared of these users; nobody is in it of whom nothing is.
    pub fn declared_of(&self, users: &[Uuid]) -> HashMap<Uuid, Declared> {
        if users.is_empty() || !self.may_have_declared() {
            return HashMap::new();
        }
        // The table has the time of day.
        let now = roster::synchronize_clock().wall();
        if !declared::try_lock() {
            let written = declared::last_written(users, now);
            let mut found = HashMap::new();
            found.make_room(written.len());
            found.extend(
                written
                    .into_iter()
                    .map(|(user_id, written)| (user_id, written.declared)),
            );
            return found;
        }
        match users.len() <= MAX_BY_KEY {
            true => declared::of_users(users, now),
            false => declared::of_many(users, now),
        }
    }

    /// Whether anything may be declared of anybody. Where nobody declares anything, no reader looks for it.
    pub fn may_have_declared(&self) -> bool {
        self.tenant.is_none_or(|tenant| tenant.may_have_declared())
    }

    /// Returns the live sessions of one user; `None` where there are none.
    pub fn live(&self, user_id: Uuid) -> Option<LiveSessions> {
        self.live_of(&[user_id]).pop()?
    }

    /// Returns the live sessions of each of these users, in the same order; `None` where there are none. The users must
    /// be distinct.
    pub fn live_of(&self, users: &[Uuid]) -> Vec<Option<LiveSessions>> {
        let in_roster = |id| {
            check_for_interrupts!();
            LiveSessions::from_roster(self.tenant?.user(id, &self.now, self.timeout)?)
        };
        let mut found = memory::collect(users.iter().map(in_roster));
        if !self.complete {
            let mut in_table = self.live_in_table(users);
            self.add_idle(&mut in_table, Some(users));
            for (id, live) in users.iter().zip(&mut found) {
                if let Some(in_table) = in_table.remove(id) {
                    live.get_or_insert_default().merge(in_table);
                }
            }
        }
        found
    }

    /// Returns the live sessions of all users who have any.
    pub fn live_of_all(&self) -> Vec<(Uuid, LiveSessions)> {
        let users = self
            .tenant
            .map_or(Vec::new(), |tenant| tenant.users_online(&self.now, self.timeout));
        let in_roster = users
            .into_iter()
            .filter_map(|user| Some((user.user_id, LiveSessions::from_roster(user)?)));
        if self.complete {
            return memory::collect(in_roster);
        }
        let mut found: HashMap<Uuid, LiveSessions> = HashMap::new();
        for (user_id, live) in in_roster {
            found.make_room(1);
            found.insert(user_id, live);
        }
        let mut in_table = self.all_live_in_table();
        self.add_idle(&mut in_table, None);
        for (user_id, in_table) in in_table {
            found.make_room(1);
            found.entry(user_id).or_default().merge(in_table);
        }
        memory::collect(found.into_iter())
    }

    /// Returns how many users have a live session.
    pub fn online_count(&self) -> i64 {
        match self.tenant {
            Some(tenant) if self.complete => tenant.online_count(&self.now, self.timeout) as i64,
            _ => self.live_of_all().len() as i64,
        }
    }

    /// Returns what is known of each of these users besides their live sessions, in the same order.
    pub fn stored(&self, users: &[Uuid]) -> Vec<StoredPresence> {
        if users.is_empty() {
            return Vec::new();
        }
        // First memory, then the tables: the worker writes what it removes from memory before.
        let in_roster = memory::collect(users.iter().map(|&user| {
            check_for_interrupts!();
            self.last_activity(user)
        }));
        let now = self.now.wall();
        FIND_STORED.with(|statement| {
            statement.read(Snapshot::Latest, &[Value::Uuids(users)], |rows| {
                let stored = |(row, in_roster): (Row, Option<Micros>)| StoredPresence {
                    user_key: row.encoded_text(1),
                    last_seen: row.time(2).map(|at| at.min(now)).max(in_roster),
                };
                memory::collect(rows.iter().zip(in_roster).map(stored))
            })
        })
    }

    /// Returns the last activity of a user that the roster knows; `None` where it knows none.
    fn last_activity(&self, user_id: Uuid) -> Option<Micros> {
        self.tenant?.user(&user_id, &self.now, self.timeout)?.last_activity
    }

    /// Adds to the live sessions that only the table has since when their users are idle. `only`: these are of these users.
    fn add_idle(&self, in_table: &mut HashMap<Uuid, LiveSessions>, only: Option<&[Uuid]>) {
        if !in_table.is_empty() && self.tenant.is_none_or(|tenant| tenant.keeps_idle()) {
            for (user_id, since) in load::idle_users(only) {
                if let Some(live) = in_table.get_mut(&user_id) {
                    live.idle_since = Some(since.min(self.now.wall()));
                }
            }
        }
    }

    /// Returns the live sessions of these users that only the table has, as [`PresenceReader::sessions_not_in_roster`].
    fn live_in_table(&self, users: &[Uuid]) -> HashMap<Uuid, LiveSessions> {
        fault_point::pause("table");
        let users = Value::Uuids(users);
        let [now, timed_out] = self.times();
        let mut found = self.find(&FIND_LIVE_OF_USERS, &[now, timed_out, users]);
        if let Some(began) = self.loads_since() {
            self.add_missing(&mut found, self.find(&FIND_RESUMED_OF_USERS, &[now, began, users]));
        }
        found
    }

    /// As `live_in_table`, of all users.
    fn all_live_in_table(&self) -> HashMap<Uuid, LiveSessions> {
        let [now, timed_out] = self.times();
        let mut found = self.find(&FIND_LIVE, &[now, timed_out]);
        if let Some(began) = self.loads_since() {
            self.add_missing(&mut found, self.find(&FIND_RESUMED, &[now, began]));
        }
        found
    }

    fn find(&self, statement: &'static LocalKey<Statement>, values: &[Value]) -> HashMap<Uuid, LiveSessions> {
        let read = |rows: Rows| self.sessions_not_in_roster(rows.iter());
        statement.with(|statement| statement.read(Snapshot::Latest, values, read))
    }

    /// Adds the users who are not there. Of those whom the roster has online, it counts the sessions; it may not have had
    /// them when it was read.
    fn add_missing(&self, found: &mut HashMap<Uuid, LiveSessions>, others: HashMap<Uuid, LiveSessions>) {
        let in_roster = |user: &Uuid| {
            self.tenant
                .is_some_and(|tenant| tenant.is_online(user, &self.now, self.timeout))
        };
        for (user_id, mut live) in others {
            if in_roster(&user_id) {
                live.sessions = 0;
            }
            found.make_room(1);
            found.entry(user_id).or_insert(live);
        }
    }

    /// When the server has started, where the worker has not loaded the table yet.
    fn loads_since(&self) -> Option<Value<'static>> {
        let tenant = self.tenant.filter(|tenant| !self.complete && !tenant.in_overflow())?;
        tenant.grace_began(&self.now).map(Value::Time)
    }

    /// Returns the parameters `$1` and `$2` of the statements: now, and the newest activity that has timed out.
    fn times(&self) -> [Value<'static>; 2] {
        let now = self.now.wall();
        let timed_out_at = match self.tenant {
            Some(tenant) => tenant.timed_out_at(&self.now, self.timeout),
            None => now.saturating_sub(self.timeout),
        };
        [Value::Time(now), Value::Time(timed_out_at)]
    }

    /// Returns, by user, the sessions of these rows that the roster does not know. A user whose only such sessions are
    /// live in the roster is included with a count of 0, for its key.
    fn sessions_not_in_roster<'a>(&self, rows: impl Iterator<Item = Row<'a>>) -> HashMap<Uuid, LiveSessions> {
        let mut found: HashMap<Uuid, LiveSessions> = HashMap::new();
        for row in rows {
            let (Some(id), Some(user_id)) = (row.uuid(1), row.uuid(2)) else {
                continue;
            };
            let in_roster = |tenant: Tenant| tenant.session(&Key::Id(id), &self.now, self.timeout);
            let in_roster = self.tenant.and_then(in_roster);
            if in_roster.is_some_and(|session| !session.live) {
                continue;
            }
            found.make_room(1);
            let user = found.entry(user_id).or_default();
            user.sessions += u32::from(in_roster.is_none());
            user.last_activity = user.last_activity.max(row.time(3));
            user.user_key = user.user_key.take().or_else(|| row.encoded_text(4));
        }
        found
    }
}
