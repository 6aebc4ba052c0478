//! Benchmarks inside the server, for what is too fast to measure from a client: built with the feature `pg_bench`, run
//! by `make bench` or `cargo pgrx bench`. They need a table of active sessions.

use std::cell::{Cell, RefCell};

use pgrx::prelude::*;
use pgrx_bench::{Bencher, black_box};
use uuid::Uuid;

use crate::{
    pg::installed,
    roster::{self, Key, Owner},
    session, settings,
};

thread_local! {
    static SESSIONS: RefCell<Vec<(Uuid, Uuid)>> = const { RefCell::new(Vec::new()) };
    static RANDOM: Cell<u64> = const { Cell::new(0x9E37_79B9_7F4A_7C15) };
}

/// Reads up to a million active sessions and their users from the table.
fn load_sessions() {
    let table = format!("{}.user_sessions", installed::schema_name());
    let read = format!("SELECT id, user_id FROM {table} WHERE is_active LIMIT 1000000");
    let rows: Vec<(Uuid, Uuid)> = Spi::connect(|client| {
        let uuid = |id: pgrx::Uuid| Uuid::from_bytes(*id.as_bytes());
        client
            .select(&read, None, &[])
            .expect("the sessions")
            .map(|row| {
                let id = row.get::<pgrx::Uuid>(1).ok().flatten().expect("an id");
                let user = row.get::<pgrx::Uuid>(2).ok().flatten().expect("a user");
                (uuid(id), uuid(user))
            })
            .collect()
    });
    assert!(!rows.is_empty(), "start some sessions first");
    SESSIONS.set(rows);
}

/// Returns a random session and its user.
fn random_session() -> (Uuid, Uuid) {
    RANDOM.set(RANDOM.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    SESSIONS.with_borrow(|sessions| sessions[((u128::from(RANDOM.get()) * sessions.len() as u128) >> 64) as usize])
}

#[pg_schema]
mod benches {
    use super::*;

    #[pg_bench(setup = load_sessions)]
    fn heartbeat(b: &mut Bencher) {
        b.iter(|| black_box(session::heartbeat(Key::Id(random_session().0), Owner::Any)));
    }

    #[pg_bench(setup = load_sessions)]
    fn heartbeat_of_a_client(b: &mut Bencher) {
        let stranger = Owner::Auth(Uuid::nil());
        let tenant = roster::tenant();
        b.iter(move || {
            let key = Key::Id(random_session().0);
            black_box(tenant.beat(&key, &stranger, &tenant.now(), settings::active_timeout))
        });
    }

    /// One call with a thousand sessions.
    #[pg_bench(setup = load_sessions)]
    fn heartbeat_many(b: &mut Bencher) {
        let ids: Vec<Uuid> = (0..1000).map(|_| random_session().0).collect();
        b.iter(move || {
            let mut missed = Vec::new();
            session::heartbeat_many(&ids, Owner::Any, &mut missed);
            black_box(missed);
        });
    }

    #[pg_bench(setup = load_sessions)]
    fn is_online(b: &mut Bencher) {
        let tenant = roster::tenant();
        b.iter(move || black_box(tenant.is_online(&random_session().1, &tenant.now(), settings::active_timeout())));
    }

    /// The minimum cost of a function of this extension, for comparison with a heartbeat.
    #[pg_extern]
    fn nothing(_session_id: pgrx::Uuid) {}

    /// Sweeps all sessions, none of which are due. Returns how many were.
    #[pg_extern]
    fn sweep_once() -> i64 {
        let tenant = roster::tenant();
        tenant.sweep(&tenant.now(), settings::active_timeout()) as i64
    }

    /// One sweep of all sessions, none of which are due.
    #[pg_bench(setup = load_sessions)]
    fn sweep(b: &mut Bencher) {
        let tenant = roster::tenant();
        b.iter(move || black_box(tenant.sweep(&tenant.now(), settings::active_timeout())));
    }
}
