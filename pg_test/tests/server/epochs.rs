//! The epoch of the change feed: when it ends, and when it does not.

use pg_presence_test::{Cluster, Database, Install, Presence, Shutdown, wait_until};
use uuid::Uuid;

/// The epoch once the worker has started.
fn epoch_of(database: &Database) -> String {
    database.wait_until_served();
    database.cursor().0
}

#[test]
fn an_epoch_ends_with_a_crash_and_outlives_a_clean_restart() {
    let cluster = Cluster::private(&[]);
    let (served, unserved) = (cluster.database(), cluster.database());
    let first = epoch_of(&served);
    let first_unserved = epoch_of(&unserved);
    cluster.restart(Shutdown::Fast);
    assert_eq!(epoch_of(&served), first);

    // One database has no worker at the start that comes after the crash, nor at the clean one after that.
    let mut postgres = cluster.connect("postgres");
    let name = &unserved.name;
    let close = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    postgres.execute(&close, &[]).unwrap();
    cluster.restart(Shutdown::Immediate);
    let second = epoch_of(&served);
    assert_ne!(second, first);
    cluster.restart(Shutdown::Fast);
    assert_eq!(epoch_of(&served), second);
    let open = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    cluster.connect("postgres").execute(&open, &[]).unwrap();
    assert_ne!(epoch_of(&unserved), first_unserved);
}

#[test]
fn copies_of_a_template_have_epochs_of_their_own() {
    let cluster = Cluster::private(&[]);
    let template = cluster.database_with(Install::None);
    let name = &template.name;
    let mut postgres = cluster.connect("postgres");
    // A template has no worker, from before the extension is created there.
    let make = format!("ALTER DATABASE {name} IS_TEMPLATE true");
    postgres.execute(&make, &[]).unwrap();
    template.run("CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence");
    let mut epochs = Vec::new();
    for copy in ["copy_1", "copy_2"] {
        let create = format!("CREATE DATABASE {copy} TEMPLATE {name}");
        wait_until("the template is free", || postgres.execute(&create, &[]).is_ok());
        let mut client = cluster.connect(copy);
        // The copy of the template's epoch ends before anything is written.
        let user = Uuid::new_v4();
        client.start(user);
        client.wait_for_written(user, true);
        let epoch = "SELECT epoch FROM presence.presence_cursor()";
        epochs.push(client.query_one(epoch, &[]).unwrap().get::<_, String>(0));
    }
    let epoch = "SELECT epoch FROM presence.presence_cursor()";
    epochs.push(template.connect().query_one(epoch, &[]).unwrap().get(0));
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), 3);
    let undo = format!("ALTER DATABASE {name} IS_TEMPLATE false");
    postgres.execute(&undo, &[]).unwrap();
}

#[test]
fn the_owner_can_renew_the_epoch() {
    let database = Cluster::shared().database();
    let (before, seq) = {
        let user = Uuid::new_v4();
        let mut service = database.connect();
        service.start(user);
        service.wait_for_written(user, true);
        database.cursor()
    };
    database.run("SELECT presence.renew_epoch()");
    wait_until("the worker goes on in the new epoch", || {
        let user = Uuid::new_v4();
        let mut service = database.connect();
        service.start(user);
        service.wait_for_written(user, true);
        database.cursor().0 != before
    });
    assert!(database.cursor().1 > seq);
    database.connect().assert_no_gaps();
}
