//! What chapters share: the big server and Redis, made when the first of them asks.

use std::path::PathBuf;

use crate::{redis::Redis, scale::Scale, stage::Stage};

pub struct Venue {
    pub scale: Scale,
    stage: Option<Stage>,
    redis: Vec<Redis>,
    directory: PathBuf,
    has_peers: bool,
}

impl Venue {
    pub fn new(scale: Scale) -> Venue {
        let directory = std::env::temp_dir().join(format!("pgp.bench.{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for Redis");
        let redis = Redis::all(&directory);
        Venue {
            scale,
            stage: None,
            redis,
            directory,
            has_peers: false,
        }
    }

    /// The server with as many live sessions as the scale says.
    pub fn stage(&mut self) -> &mut Stage {
        self.stage.get_or_insert_with(|| {
            let mut stage = Stage::new(self.scale.sessions, &[]);
            stage.load(self.scale.sessions);
            stage
        })
    }

    /// The same, with the peers' tables, and the servers of the other kind.
    pub fn with_peers(&mut self) -> (&mut Stage, &[Redis]) {
        if !self.has_peers {
            self.has_peers = true;
            self.stage().load_peers();
            for redis in &self.redis {
                redis.load(self.scale.sessions);
            }
        }
        (self.stage.as_mut().expect("just made"), &self.redis)
    }

    /// Ends the big server, whose memory another one needs.
    pub fn close(&mut self) {
        self.stage = None;
        self.has_peers = false;
    }

    /// What the peers are that are servers of their own.
    pub fn peers(&self) -> Vec<String> {
        self.redis.iter().map(Redis::version).collect()
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        self.redis.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
