//! Random work, rotations and ends of the agent against a real Elasticsearch: `make test` takes a short turn, `make soak`
//! a long one. `SOAK_SECONDS` is how long, `SOAK_SEED` makes the same choices again.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    elastic::{Pods, assert_each_once, shipping},
    support::{Agent, Chance, Elastic, LogDir},
};

/// What was done to the agent and its files.
#[derive(Debug, Default)]
struct Done {
    kills: u32,
    stops: u32,
    rotations: u32,
}

#[test]
fn random_kills_and_rotations_lose_and_double_nothing() {
    let (time, seed) = (Duration::from_secs(asked("SOAK_SECONDS", 10)), asked("SOAK_SEED", 1));
    eprintln!("soak: {time:?} with SOAK_SEED={seed}");
    let (elastic, logs, mut chance) = (Elastic::shared(), LogDir::new(), Chance::new(seed));
    let (config, index) = shipping(&logs, elastic, "soak");
    let mut agent = Agent::start(&config, &[]);
    let (mut pods, mut done, start) = (Pods::new(&logs, 6), Done::default(), Instant::now());
    while start.elapsed() < time {
        for _ in 0..chance.below(8) {
            work(&mut pods, &mut chance, &mut done);
            // Not to wait for anything: the next step meets the agent wherever it is by then.
            thread::sleep(Duration::from_millis(chance.below(150)));
        }
        end(&mut agent, &mut chance, &mut done);
        if chance.below(3) == 0 {
            work(&mut pods, &mut chance, &mut done);
        }
        agent.start_again();
    }
    assert_each_once(elastic, &index, &pods.written);
    eprintln!("soak: {} lines are there once each after {done:?}", pods.written.len());
}

/// Lines into every file, or one file rotated.
fn work(pods: &mut Pods, chance: &mut Chance, done: &mut Done) {
    if chance.below(4) == 0 {
        pods.rotate_one(chance.below(6) as usize);
        done.rotations += 1;
    } else {
        pods.write(chance.below(40) as usize);
    }
}

/// Mostly by SIGKILL, now and then as a node's drain does it.
fn end(agent: &mut Agent, chance: &mut Chance, done: &mut Done) {
    if chance.below(5) == 0 {
        assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
        done.stops += 1;
    } else {
        agent.kill_9();
        done.kills += 1;
    }
}

fn asked(name: &str, usual: u64) -> u64 {
    let Ok(text) = env::var(name) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number"))
}
