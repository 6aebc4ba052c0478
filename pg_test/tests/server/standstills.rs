//! The whole server stands still for a while.

use std::{fs, time::Duration};

use pg_presence_test::{Cluster, Database, Presence, Session, Stalls, signal, try_signal, wait_for, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::clock::{login, reasons, wait_for_sweeps};

/// For how long a server stands still on which a session times out earlier.
const STANDSTILL: Duration = Duration::from_secs(11);

/// A stall that is shorter than the timeout and the grace. One that is longer may take anybody offline.
const STALL: Duration = Duration::from_secs(5);

fn timeout_within_a_standstill() -> Cluster {
    Cluster::private(&[("presence.active_timeout", "9s")])
}

/// Returns the processes of a server, the postmaster first.
fn processes(cluster: &Cluster) -> Vec<i32> {
    let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = status.rsplit_once(") ")?;
        let parent: i32 = rest.split(' ').nth(1)?.parse().ok()?;
        (parent == cluster.pid()).then_some(pid)
    });
    [cluster.pid()].into_iter().chain(children).collect()
}

/// Stopped processes of a server, the postmaster first. They continue when this is dropped.
struct StoppedServer(Vec<i32>);

impl Drop for StoppedServer {
    fn drop(&mut self) {
        // The postmaster last, so that it does not find its children gone.
        let pids: Vec<i32> = self.0.iter().rev().copied().collect();
        try_signal("CONT", &pids);
    }
}

/// Stops all processes of a server for longer than the timeout, and lets `first` go on before the others.
fn stand_still(database: &Database, first: i32, stalls: &mut Stalls, before_the_others: impl FnOnce()) {
    // While it holds no lock that `before_the_others` may wait for.
    let worker = database.pause_worker();
    let stopped = StoppedServer(processes(database.cluster));
    assert!(stopped.0.contains(&first));
    try_signal("STOP", &stopped.0);
    stalls.step();
    worker.resume();
    std::thread::sleep(STANDSTILL);
    stalls.skip();
    signal("CONT", first);
    before_the_others();
}

fn launcher(client: &mut Client) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_presence launcher%'";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Returns two users who have just beaten, and of whom no more is written than that they have started.
fn two_users(service: &mut Client) -> [(Uuid, Session); 2] {
    wait_for("two users who are online", || {
        let users = [(); 2].map(|()| service.start_written());
        let mut has_stayed = |(user, session): &(Uuid, Session)| {
            service.beat(session.id) == "ok" && reasons(service, *user) == ["started"]
        };
        users.iter().all(&mut has_stayed).then_some(users)
    })
}

/// One user beats after the standstill and another does not.
fn stands_still(database: &Database, first: impl Fn(&mut Client) -> i32, is_reader: bool) {
    let mut service = database.connect();
    wait_until("an attempt without a stall of the machine", || {
        let [(beating, session), (silent, _)] = two_users(&mut service);
        let first = first(&mut service);
        let mut stalls = Stalls::begin();
        let mut seen = None;
        stand_still(database, first, &mut stalls, || {
            if is_reader {
                seen = Some((service.is_online(beating), service.is_online(silent)));
            }
        });
        let are_online = service.is_online(beating) && service.is_online(silent);
        wait_until("the silent one is written", || {
            assert_eq!(service.beat(session.id), "ok");
            stalls.step();
            reasons(&mut service, silent).len() == 2
        });
        let reasons = [silent, beating].map(|user| reasons(&mut service, user));
        stalls.end() < STALL && {
            assert!(seen.is_none_or(|seen| seen == (true, true)), "{seen:?}");
            assert!(are_online);
            assert_eq!(reasons[0], ["started", "recovered"]);
            assert_eq!(reasons[1], ["started"]);
            true
        }
    });
}

#[test]
fn a_standstill_of_the_server_takes_nobody_offline_whoever_wakes_first() {
    let cluster = timeout_within_a_standstill();
    let database = cluster.database();
    database.wait_until_served();
    stands_still(&database, launcher, false);
    let worker = database.worker();
    stands_still(&database, |_| worker, false);
    stands_still(&database, Client::process_id, true);
}

#[test]
fn two_standstills_in_a_row_take_nobody_offline() {
    let cluster = timeout_within_a_standstill();
    let database = cluster.database();
    database.wait_until_served();
    wait_until("an attempt without a stall of the machine", || {
        let mut stalls = Stalls::begin();
        let (mut service, user, session) = login(&database);
        let launcher = launcher(&mut service);
        for _ in 0..2 {
            stand_still(&database, launcher, &mut stalls, || ());
            // It runs again, for less than the grace.
            wait_for_sweeps(&mut service);
        }
        let is_online = service.is_online(user);
        assert_eq!(service.beat(session.id), "ok");
        stalls.step();
        wait_for_sweeps(&mut service);
        let reasons = reasons(&mut service, user);
        stalls.end() < STALL && {
            assert!(is_online);
            assert_eq!(reasons, ["started"]);
            true
        }
    });
}

#[test]
fn a_worker_that_stood_still_alone_gives_no_grace() {
    let cluster = timeout_within_a_standstill();
    let database = cluster.database();
    database.wait_until_served();
    // Where the launcher does not run either for longer than a heartbeat, everybody has a grace; then this tries again.
    wait_until("an attempt in which the launcher runs", || {
        let (mut service, user, _) = login(&database);
        let worker = database.pause_worker();
        wait_until("readers see the timeout", || !service.is_online(user));
        worker.resume();
        service.wait_for_written(user, false);
        let reasons = reasons(&mut service, user);
        reasons == ["started", "timed_out"] || {
            assert_eq!(reasons, ["started", "recovered"]);
            false
        }
    });
}
