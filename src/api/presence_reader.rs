//! What readers are told: memory's answer, and the table's where memory may not know everything.
//!
//! A session is live if the roster says so. What the roster does not know is asked of the table, unless the roster was
//! complete before it was asked; what it does know, the table cannot overrule, as it lags behind. A standby has no
//! roster and answers from the table alone.

use std::collections::HashMap;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::{compat, errors, text::Stored},
    roster::{self, Key, Tenant, UserView},
    rules::time::Micros,
    settings,
    store::{
        rows::Row,
        statement::{Snapshot, Statement},
        value::Value,
    },
};

/// The live sessions of one user.
#[derive(Default)]
pub struct LiveSessions {
    pub sessions: u32,
    pub last_activity: Option<Micros>,
    /// The user's key, where the table told it.
    pub user_key: Option<Stored>,
    /// Whether the user has a key that its id does not tell.
    pub keyed: bool,
}

impl LiveSessions {
    fn in_memory(user: UserView) -> Option<LiveSessions> {
        (user.live_sessions > 0).then_some(LiveSessions {
            sessions: user.live_sessions,
            last_activity: user.last_activity,
            user_key: None,
            keyed: user.keyed,
        })
    }

    fn add(&mut self, more: LiveSessions) {
        // A session may have got into memory after memory was asked: then it is counted by neither.
        self.sessions = (self.sessions + more.sessions).max(1);
        self.last_activity = self.last_activity.max(more.last_activity);
        self.user_key = self.user_key.take().or(more.user_key);
    }
}

/// What is known of a user without a live session, or beside them.
pub struct StoredPresence {
    pub user_key: Option<Stored>,
    pub last_seen: Option<Micros>,
}

/// One look at everybody, at one time.
pub struct PresenceReader {
    now: Micros,
    timeout: Micros,
    /// None on a standby.
    tenant: Option<Tenant>,
    complete: bool,
}

thread_local! {
    /// Sessions that the table shows live, of some users. Written so that the partial index on tokens does not offer
    /// itself, which looks small for as long as the table has not been analyzed.
    static LIVE_OF: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, last_activity, user_key FROM {s}.user_sessions \
             WHERE is_active AND (ended_at IS NULL) = is_active AND expires_at > $1 \
             AND (last_activity > $2 OR $1 < $3) AND user_id = ANY ($4)"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID],
    ) };
    /// The same, of everybody.
    static LIVE: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, last_activity, user_key FROM {s}.user_sessions \
             WHERE is_active AND ended_at IS NULL AND expires_at > $1 AND (last_activity > $2 OR $1 < $3)"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    /// What both tables keep of some users, in the order of the array.
    static STORED: Statement = const { Statement::new(
        |s| format!(
            "SELECT COALESCE(p.user_key, s.user_key), greatest(p.last_seen, s.last_activity) \
             FROM unnest($1) WITH ORDINALITY u (id, n) \
             LEFT JOIN {s}.user_presence p ON p.user_id = u.id \
             LEFT JOIN LATERAL (SELECT max(user_key) AS user_key, max(last_activity) AS last_activity \
             FROM {s}.user_sessions WHERE user_id = u.id) s ON true \
             ORDER BY u.n"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
}

impl PresenceReader {
    /// Begins to read. Errors with 55000 where the library is not preloaded or the extension not installed.
    #[inline]
    pub fn begin() -> PresenceReader {
        if !settings::is_preloaded() {
            errors::not_preloaded();
        }
        let (now, timeout) = (compat::now(), settings::active_timeout());
        if compat::in_recovery() {
            return PresenceReader {
                now,
                timeout,
                tenant: None,
                complete: false,
            };
        }
        let tenant = roster::tenant();
        // Before any session is looked up: what is loaded in between is found there.
        let complete = tenant.is_complete();
        PresenceReader {
            now,
            timeout,
            tenant: Some(tenant),
            complete,
        }
    }

    /// Whether a user has a live session.
    #[inline]
    pub fn is_online(&self, user_id: Uuid) -> bool {
        self.tenant
            .is_some_and(|tenant| tenant.is_online(&user_id, self.now, self.timeout))
            || !self.complete && self.in_table(&[user_id]).contains_key(&user_id)
    }

    /// The live sessions of one user, if there are any.
    pub fn live(&self, user_id: Uuid) -> Option<LiveSessions> {
        self.live_of(&[user_id]).pop()?
    }

    /// The live sessions of each of these users, where there are any, in the same order. A user may be named once.
    pub fn live_of(&self, users: &[Uuid]) -> Vec<Option<LiveSessions>> {
        let in_memory = |id| LiveSessions::in_memory(self.tenant?.user(id, self.now, self.timeout)?);
        let mut found: Vec<_> = users.iter().map(in_memory).collect();
        if !self.complete {
            let mut in_table = self.in_table(users);
            for (id, live) in users.iter().zip(&mut found) {
                if let Some(more) = in_table.remove(id) {
                    live.get_or_insert_default().add(more);
                }
            }
        }
        found
    }

    /// The live sessions of everybody, by user.
    pub fn everybody(&self) -> Vec<(Uuid, LiveSessions)> {
        let in_memory = self
            .tenant
            .map_or(Vec::new(), |tenant| tenant.users_online(self.now, self.timeout));
        let in_memory = in_memory
            .into_iter()
            .filter_map(|user| Some((user.user_id, LiveSessions::in_memory(user)?)));
        if self.complete {
            return in_memory.collect();
        }
        let mut found: HashMap<Uuid, LiveSessions> = in_memory.collect();
        for (user_id, more) in self.everybody_in_table() {
            found.entry(user_id).or_default().add(more);
        }
        found.into_iter().collect()
    }

    /// How many users have a live session.
    pub fn count(&self) -> i64 {
        match self.tenant {
            Some(tenant) if self.complete => tenant.online_count(self.now, self.timeout) as i64,
            _ => self.everybody().len() as i64,
        }
    }

    /// What the tables keep of these users, in the same order.
    pub fn stored(&self, users: &[Uuid]) -> Vec<StoredPresence> {
        if users.is_empty() {
            return Vec::new();
        }
        STORED.with(|stored| {
            stored.read(Snapshot::Latest, &[Value::Uuids(users)], |rows| {
                let stored = |row: Row| StoredPresence {
                    user_key: row.stored(1),
                    last_seen: row.time(2),
                };
                rows.iter().map(stored).collect()
            })
        })
    }

    /// The last activity that memory knows of.
    pub fn last_activity(&self, user_id: Uuid) -> Option<Micros> {
        self.tenant?.user(&user_id, self.now, self.timeout)?.last_activity
    }

    fn in_table(&self, users: &[Uuid]) -> HashMap<Uuid, LiveSessions> {
        let [now, silent, grace] = self.clock();
        let values = [now, silent, grace, Value::Uuids(users)];
        LIVE_OF.with(|live| live.read(Snapshot::Latest, &values, |rows| self.unknown(rows.iter())))
    }

    fn everybody_in_table(&self) -> HashMap<Uuid, LiveSessions> {
        let values = self.clock();
        LIVE.with(|live| live.read(Snapshot::Latest, &values, |rows| self.unknown(rows.iter())))
    }

    /// Now, since when silence is too long, and until when the table is believed whatever its age.
    fn clock(&self) -> [Value<'static>; 3] {
        let grace_until = self.tenant.map_or(Micros::MIN, |tenant| tenant.grace_until());
        [
            Value::Time(self.now),
            Value::Time(self.now - self.timeout),
            Value::Time(grace_until),
        ]
    }

    /// The sessions among these rows that memory does not know, by user. A user of whom it knows one that is live is
    /// named, too, with none.
    fn unknown<'a>(&self, rows: impl Iterator<Item = Row<'a>>) -> HashMap<Uuid, LiveSessions> {
        let mut found: HashMap<Uuid, LiveSessions> = HashMap::new();
        for row in rows {
            let (Some(id), Some(user_id)) = (row.uuid(1), row.uuid(2)) else {
                continue;
            };
            let in_memory = |tenant: Tenant| tenant.session(&Key::Id(id), self.now, self.timeout);
            let known = self.tenant.and_then(in_memory);
            if known.is_some_and(|session| !session.live) {
                continue;
            }
            let user = found.entry(user_id).or_default();
            user.sessions += u32::from(known.is_none());
            user.last_activity = user.last_activity.max(row.time(3));
            user.user_key = user.user_key.take().or_else(|| row.stored(4));
        }
        found
    }
}
