//! What readers are told: memory's answer, and the table's where memory may not know everything.
//!
//! A session is live if the roster says so. What the roster does not know is asked of the table, unless the roster was
//! complete before it was asked; what it does know, the table cannot overrule, as it lags behind. A standby has no
//! roster and answers from the table alone.

use crate::core::time::Micros;
use crate::roster::{self, Key, Space, UserView};
use crate::store::rows::Row;
use crate::store::statement::{Sees, Statement};
use crate::store::value::Value;
use crate::text::Stored;
use crate::{compat, errors, settings};
use pgrx::pg_sys;
use std::collections::HashMap;
use uuid::Uuid;

/// The live sessions of one user.
#[derive(Default)]
pub struct Live {
    pub sessions: u32,
    pub last_activity: Option<Micros>,
    /// The user's key, where the table told it.
    pub user_key: Option<Stored>,
    /// Whether the user has a key that its id does not tell.
    pub keyed: bool,
}

impl Live {
    fn in_memory(user: UserView) -> Option<Live> {
        (user.live_sessions > 0).then_some(Live {
            sessions: user.live_sessions,
            last_activity: user.last_activity,
            user_key: None,
            keyed: user.keyed,
        })
    }

    fn add(&mut self, more: Live) {
        // A session may have got into memory after memory was asked: then it is counted by neither.
        self.sessions = (self.sessions + more.sessions).max(1);
        self.last_activity = self.last_activity.max(more.last_activity);
        self.user_key = self.user_key.take().or(more.user_key);
    }
}

/// What is known of a user without a live session, or beside them.
pub struct Known {
    pub user_key: Option<Stored>,
    pub last_seen: Option<Micros>,
}

/// One look at everybody, at one time.
pub struct Reading {
    now: Micros,
    timeout: Micros,
    /// None on a standby.
    space: Option<Space>,
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
    static KNOWN: Statement = const { Statement::new(
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

impl Reading {
    /// Begins to read. Errors with 55000 where the library is not preloaded or the extension not installed.
    #[inline]
    pub fn begin() -> Reading {
        if !roster::preloaded() {
            errors::not_preloaded();
        }
        let (now, timeout) = (compat::now(), settings::active_timeout());
        if compat::in_recovery() {
            return Reading {
                now,
                timeout,
                space: None,
                complete: false,
            };
        }
        let space = roster::space();
        // Before any session is looked up: what is loaded in between is found there.
        let complete = space.is_complete();
        Reading {
            now,
            timeout,
            space: Some(space),
            complete,
        }
    }

    /// Whether a user has a live session.
    #[inline]
    pub fn is_online(&self, user_id: Uuid) -> bool {
        self.space
            .is_some_and(|space| space.is_online(&user_id, self.now, self.timeout))
            || !self.complete && self.in_table(&[user_id]).contains_key(&user_id)
    }

    /// The live sessions of one user, if there are any.
    pub fn live(&self, user_id: Uuid) -> Option<Live> {
        self.live_of(&[user_id]).pop()?
    }

    /// The live sessions of each of these users, where there are any, in the same order. A user may be named once.
    pub fn live_of(&self, users: &[Uuid]) -> Vec<Option<Live>> {
        let in_memory = |id| Live::in_memory(self.space?.user(id, self.now, self.timeout)?);
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
    pub fn everybody(&self) -> Vec<(Uuid, Live)> {
        let in_memory = self.space.map_or(Vec::new(), |space| {
            space.users_online(self.now, self.timeout)
        });
        let in_memory = in_memory
            .into_iter()
            .filter_map(|user| Some((user.user_id, Live::in_memory(user)?)));
        if self.complete {
            return in_memory.collect();
        }
        let mut found: HashMap<Uuid, Live> = in_memory.collect();
        for (user_id, more) in self.everybody_in_table() {
            found.entry(user_id).or_default().add(more);
        }
        found.into_iter().collect()
    }

    /// How many users have a live session.
    pub fn count(&self) -> i64 {
        match self.space {
            Some(space) if self.complete => space.online_count(self.now, self.timeout) as i64,
            _ => self.everybody().len() as i64,
        }
    }

    /// What the tables keep of these users, in the same order.
    pub fn known(&self, users: &[Uuid]) -> Vec<Known> {
        if users.is_empty() {
            return Vec::new();
        }
        KNOWN.with(|known| {
            known.read(Sees::Latest, &[Value::Uuids(users)], |rows| {
                let told = |row: Row| Known {
                    user_key: row.stored(1),
                    last_seen: row.time(2),
                };
                rows.iter().map(told).collect()
            })
        })
    }

    /// The last activity that memory knows of.
    pub fn last_activity(&self, user_id: Uuid) -> Option<Micros> {
        self.space?
            .user(&user_id, self.now, self.timeout)?
            .last_activity
    }

    fn in_table(&self, users: &[Uuid]) -> HashMap<Uuid, Live> {
        let [now, silent, grace] = self.clock();
        let values = [now, silent, grace, Value::Uuids(users)];
        LIVE_OF.with(|live| live.read(Sees::Latest, &values, |rows| self.unknown(rows.iter())))
    }

    fn everybody_in_table(&self) -> HashMap<Uuid, Live> {
        let values = self.clock();
        LIVE.with(|live| live.read(Sees::Latest, &values, |rows| self.unknown(rows.iter())))
    }

    /// Now, since when silence is too long, and until when the table is believed whatever its age.
    fn clock(&self) -> [Value<'static>; 3] {
        let grace_until = self.space.map_or(Micros::MIN, |space| space.grace_until());
        [
            Value::Time(self.now),
            Value::Time(self.now - self.timeout),
            Value::Time(grace_until),
        ]
    }

    /// The sessions among these rows that memory does not know, by user. A user of whom it knows one that is live is
    /// named, too, with none.
    fn unknown<'a>(&self, rows: impl Iterator<Item = Row<'a>>) -> HashMap<Uuid, Live> {
        let mut found: HashMap<Uuid, Live> = HashMap::new();
        for row in rows {
            let (Some(id), Some(user_id)) = (row.uuid(1), row.uuid(2)) else {
                continue;
            };
            let in_memory = |space: Space| space.session(&Key::Id(id), self.now, self.timeout);
            let known = self.space.and_then(in_memory);
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
