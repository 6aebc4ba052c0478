//! The test harness itself: what the other tests rely on.

use pg_presence_test::{Cluster, Install, Shutdown};

#[test]
fn the_server_is_our_private_copy() {
    let mut postgres = Cluster::shared().connect("postgres");
    let share: String = postgres
        .query_one("SELECT setting FROM pg_config() WHERE name = 'SHAREDIR'", &[])
        .unwrap()
        .get(0);
    assert!(share.starts_with("/tmp/"), "{share}");
}

#[test]
fn a_setting_changes_while_the_server_runs() {
    let cluster = Cluster::private(&[]);
    let mut client = cluster.connect("postgres");
    cluster.set("work_mem", "5MB");
    let work_mem: String = client.query_one("SHOW work_mem", &[]).unwrap().get(0);
    assert_eq!(work_mem, "5MB");
}

#[test]
fn a_server_starts_again_however_it_was_stopped() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::None);
    database.run("CREATE TABLE t AS SELECT 1 AS a");
    for how in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill] {
        cluster.restart(how);
        database.run("SELECT a FROM t");
    }
}

#[test]
fn a_process_that_goes_on_and_is_paused_again_at_once_is_paused() {
    let database = Cluster::shared().database();
    let worker = database.worker();
    for _ in 0..20 {
        let paused = database.pause_at(worker, "idle");
        paused.wait_until_reached();
        paused.resume();
    }
}
