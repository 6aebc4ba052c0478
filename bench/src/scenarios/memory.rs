//! Shared memory, by how many sessions there is room for. It is reserved at the start, whatever is in it.

use crate::{
    env::Env,
    results::Results,
    server::Server,
    summary::{Summary, count},
};

pub fn run(env: &mut Env) -> Results {
    let mut results = Results::new("memory", "Shared memory");
    let sizes = [10_000, 100_000, env.scale.sessions];
    for (at, sessions) in sizes.into_iter().enumerate() {
        let server = Server::new(sessions, &[]);
        let figure = results.figure(
            format!(
                "shared memory per session, room for {} and a tenth more",
                count(sessions, "session")
            ),
            "bytes",
            Summary::once(server.memory_per_session()),
        );
        if at == sizes.len() - 1 {
            figure.for_budget("memory");
        }
    }
    results
}
