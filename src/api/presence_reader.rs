//! Reads presence from the roster, and from the table where the roster may not know every session.
//!
//! Of a session that the roster knows, the roster alone decides whether it is live, as the table lags behind. Sessions
//! that it does not know are read from the table, unless the roster was complete when the reader began. A standby has
//! no roster and reads the table alone. The table of sessions does not say who is idle: of users whose sessions are read
//! there, `user_presence` does, unless the roster is in overflow, when somebody may have been heard from of whom only the
//! table was told. What of this shows is for [`super::shown`] to decide.

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
    rules::{hiding::Visible, status::Status, time::Micros},
    settings,
    store::{
        load,
        rows::{Row, Rows},
        statement::{Snapshot, Statement},
        value::Value,
    },
    triggers::pending,
};

/// The live sessions of one user.
pub struct LiveSessions {
    pub sessions: u32,
    pub last_activity: Option<Micros>,
    /// When somebody was last at one of them, if all are idle.
    pub idle_since: Option<Micros>,
    /// The user's key, where it has been read from the table.
    pub user_key: Option<EncodedText>,
    /// Whether the user has a key that cannot be derived from its id.
    pub keyed: bool,
    /// What of all this the roster says is visible, and whether the user was hidden as far as it ever knew.
    pub visible: Visible,
    pub is_hidden: bool,
}

impl Default for LiveSessions {
    fn default() -> LiveSessions {
        LiveSessions {
            sessions: 0,
            last_activity: None,
            idle_since: None,
            user_key: None,
            keyed: false,
            visible: Visible::ALL,
            is_hidden: false,
        }
    }
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
            visible: user.visible,
            is_hidden: user.is_hidden,
        })
    }

    /// Returns what of these sessions shows at `now`; `None`: nothing.
    pub fn shown(self, visible: &Visible, now: Micros) -> Option<LiveSessions> {
        let idle_since = self
            .idle_since
            .and_then(|at| visible.idle_since(at, now, settings::idle_timeout()));
        (!visible.is_hidden()).then(|| LiveSessions {
            last_activity: visible.last_seen(true, self.last_activity),
            idle_since,
            ..self
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

/// What is known of a user besides live sessions, as far as anybody may know.
pub struct StoredPresence {
    /// The key that was last written of the user, and that of its sessions.
    written_key: Option<EncodedText>,
    session_key: Option<EncodedText>,
    /// Whether nobody may see its sessions: it is hidden, or was whenever it had one.
    is_unseen: bool,
    /// The last activity while it is offline.
    pub last_seen: Option<Micros>,
}

impl StoredPresence {
    /// Returns the user's key. `is_live`: the user is online.
    pub fn user_key(self, is_live: bool) -> Option<EncodedText> {
        self.written_key
            .or(self.session_key.filter(|_| is_live || !self.is_unseen))
    }
}

/// The same with what nobody may know.
struct Stored {
    written_key: Option<EncodedText>,
    session_key: Option<EncodedText>,
    /// The last activity that was written of the user, and that of its sessions.
    last_written: Option<Micros>,
    activity: Option<Micros>,
}

impl Stored {
    fn shown(self, visible: &Visible) -> StoredPresence {
        let last_seen = visible.last_seen(false, self.activity).max(self.last_written);
        StoredPresence {
            written_key: self.written_key,
            session_key: self.session_key,
            is_unseen: visible.is_hidden() || *visible != Visible::ALL && last_seen.is_none(),
            last_seen,
        }
    }
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
            "SELECT p.user_key, CASE WHEN p.user_key IS NULL THEN s.user_key END, p.last_seen, s.last_activity \
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

    /// Returns whether a user has a live session, as far as the roster knows who is hidden.
    #[inline]
    pub fn is_live(&self, user_id: Uuid) -> bool {
        self.tenant
            .is_some_and(|tenant| tenant.is_online(&user_id, &self.now, self.timeout))
            || !self.complete && self.live_in_table(&[user_id]).contains_key(&user_id)
    }

    /// Returns what the sessions of a user make of it, as far as the roster knows who is hidden.
    #[inline]
    pub fn status_by_sessions(&self, user_id: Uuid) -> Status {
        match self.tenant {
            Some(tenant) if self.complete => tenant.user_status(&user_id, &self.now, self.timeout),
            _ => self
                .live(user_id)
                .map_or(Status::Inactive, |live: LiveSessions| live.status()),
        }
    }

    /// Whether anything may be declared of anybody. Where nobody declares anything, no reader looks for it.
    #[inline]
    pub fn may_have_declared(&self) -> bool {
        self.tenant.is_none_or(|tenant| tenant.may_have_declared())
    }

    /// Whether anybody may be hidden, or have been.
    #[inline]
    pub fn may_have_hidden(&self) -> bool {
        self.tenant.is_none_or(|tenant| tenant.may_have_hidden())
    }

    /// Whether only the table tells who is hidden: the roster lacks sessions, or does not know, or this transaction has changed
    /// it, which shows to itself as anything declared does.
    #[inline]
    pub fn has_visibility_in_table(&self) -> bool {
        let is_in_table = |tenant: Tenant| !self.complete || tenant.is_visibility_lost() || pending::has_visibility();
        self.tenant
            .is_none_or(|tenant| tenant.may_have_hidden() && is_in_table(tenant))
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

    /// Returns how many users have a live session, as far as the roster knows who is hidden.
    pub fn live_count(&self) -> i64 {
        match self.tenant {
            Some(tenant) if self.complete => tenant.online_count(&self.now, self.timeout) as i64,
            _ => self.live_of_all().len() as i64,
        }
    }

    /// Returns the time of day of what is read.
    pub fn wall(&self) -> Micros {
        self.now.wall()
    }

    /// Returns what is known of each of these users besides their live sessions, in the same order.
    pub fn stored(&self, users: &[Uuid]) -> Vec<StoredPresence> {
        if users.is_empty() {
            return Vec::new();
        }
        fault_point::pause("stored");
        // First memory, then the tables: the worker writes what it removes from memory before.
        let in_roster = memory::collect(users.iter().map(|&user| {
            check_for_interrupts!();
            self.last_activity(user)
        }));
        let now = self.now.wall();
        let found = FIND_STORED.with(|statement| {
            statement.read(Snapshot::Latest, &[Value::Uuids(users)], |rows| {
                let stored = |(row, in_roster): (Row, Option<Micros>)| Stored {
                    written_key: row.encoded_text(1),
                    session_key: row.encoded_text(2),
                    last_written: row.time(3).map(|at| at.min(now)),
                    activity: row.time(4).map(|at| at.min(now)).max(in_roster),
                };
                memory::collect(rows.iter().zip(in_roster).map(stored))
            })
        });
        // Last: whoever has been active while hidden was hidden before that.
        let visible = self.visible(Some(users));
        let shown = |(user, stored): (&Uuid, Stored)| stored.shown(visible.get(user).unwrap_or(&Visible::ALL));
        memory::collect(users.iter().zip(found).map(shown))
    }

    /// Returns whether the roster says that a user is hidden.
    pub fn is_hidden_by_roster(&self, user_id: Uuid) -> bool {
        let user = self
            .tenant
            .and_then(|tenant| tenant.user(&user_id, &self.now, self.timeout));
        user.is_some_and(|user| user.is_hidden)
    }

    /// Whether those are hidden whom the roster has as hidden, also where it does not know of others: but for what this
    /// transaction has changed itself.
    pub fn trusts_hidden(&self) -> bool {
        self.tenant.is_some_and(|tenant| tenant.trusts_hidden()) && !pending::has_visibility()
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
                .is_some_and(|tenant| tenant.has_live(user, &self.now, self.timeout))
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
