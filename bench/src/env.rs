//! What scenarios share: the large server and Redis.

use std::path::PathBuf;

use crate::{redis::Redis, scale::Scale, server::Server};

pub struct Env {
    pub scale: Scale,
    server: Option<Server>,
    redis: Vec<Redis>,
    directory: PathBuf,
    has_alternatives: bool,
}

impl Env {
    pub fn new(scale: Scale) -> Env {
        let directory = std::env::temp_dir().join(format!("pgp.bench.{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("create a directory for Redis");
        let redis = Redis::start_all(&directory);
        Env {
            scale,
            server: None,
            redis,
            directory,
            has_alternatives: false,
        }
    }

    /// Returns the server with the scale's number of live sessions, started on first use.
    pub fn server(&mut self) -> &mut Server {
        self.server.get_or_insert_with(|| {
            let mut server = Server::new(self.scale.sessions, &[]);
            server.load(self.scale.sessions);
            server
        })
    }

    /// Returns the same server with the tables of the alternatives, and the Redis servers.
    pub fn with_alternatives(&mut self) -> (&mut Server, &[Redis]) {
        if !self.has_alternatives {
            self.has_alternatives = true;
            self.server().load_alternatives();
            for redis in &self.redis {
                redis.load(self.scale.sessions);
            }
        }
        (self.server.as_mut().expect("just started"), &self.redis)
    }

    /// Stops the large server, to free its memory for another.
    pub fn stop_server(&mut self) {
        self.server = None;
        self.has_alternatives = false;
    }

    pub fn redis_versions(&self) -> Vec<String> {
        self.redis.iter().map(Redis::version).collect()
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        self.redis.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
