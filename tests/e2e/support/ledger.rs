//! The agent's accounts: what was read is delivered, refused, left out, lost, or on its way.

use serde::Deserialize;

use super::{Agent, seconds, wait_until};

/// The ledger of one life of the agent, as the page has it: of all it reads, or of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Ledger {
    pub read_lines: u64,
    pub read_bytes: u64,
    pub acked_lines: u64,
    pub acked_bytes: u64,
    pub in_flight_lines: u64,
    pub in_flight_bytes: u64,
    pub dead_letter_lines: u64,
    pub dead_letter_bytes: u64,
    pub dropped_lines: u64,
    pub dropped_bytes: u64,
    pub lost_lines: u64,
    pub lost_bytes: u64,
}

/// One container's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContainerLedger {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    #[serde(flatten)]
    pub ledger: Ledger,
}

impl Ledger {
    /// As it is now.
    #[track_caller]
    pub fn of(agent: &Agent) -> Self {
        serde_json::from_value(agent.admin("/api/v1/status").json()["ledger"].clone()).expect("a ledger")
    }

    /// read = acknowledged + in flight + dead letters + dropped + lost, in lines and in bytes.
    #[track_caller]
    fn assert_sum(&self, whose: &str) {
        let lines = self.acked_lines
            + self.in_flight_lines
            + self.dead_letter_lines
            + self.dropped_lines
            + self.lost_lines;
        let bytes = self.acked_bytes
            + self.in_flight_bytes
            + self.dead_letter_bytes
            + self.dropped_bytes
            + self.lost_bytes;
        assert_eq!((self.read_lines, self.read_bytes), (lines, bytes), "{whose}: {self:?}");
    }
}

/// Every container's, as it is now; the sum of each is exact at any time.
#[track_caller]
pub fn container_ledgers(agent: &Agent) -> Vec<ContainerLedger> {
    let files = agent.admin("/api/v1/files").json();
    let all: Vec<ContainerLedger> =
        serde_json::from_value(files["containers"].clone()).expect("the containers' ledgers");
    all.iter().for_each(|one| one.ledger.assert_sum(&format!("{}/{}", one.namespace, one.pod)));
    all
}

/// Waits until nothing is in flight, then checks that the sum is exact, over all and for each container, and that nothing is
/// lost. The agent counts from its last start on.
#[track_caller]
pub fn assert_ledger(agent: &Agent) -> Ledger {
    container_ledgers(agent);
    let ledger = wait_until("nothing is in flight", seconds(60), || match Ledger::of(agent) {
        ledger if ledger.in_flight_lines == 0 => Ok(ledger),
        ledger => Err(format!("{ledger:?}")),
    });
    ledger.assert_sum("all");
    assert_eq!((ledger.in_flight_bytes, ledger.lost_lines, ledger.lost_bytes), (0, 0, 0), "{ledger:?}");
    for one in container_ledgers(agent) {
        assert_eq!((one.ledger.in_flight_lines, one.ledger.in_flight_bytes), (0, 0), "{one:?}");
    }
    ledger
}
