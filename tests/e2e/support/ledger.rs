//! The agent's accounts: what was read is delivered, refused, left out, or on its way.

use serde::Deserialize;

use super::{Agent, seconds, wait_until};

/// The ledger of one life of the agent, as the page has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Ledger {
    pub read_lines: u64,
    pub read_bytes: u64,
    pub acked_lines: u64,
    pub acked_bytes: u64,
    pub in_flight_lines: u64,
    pub dead_letter_lines: u64,
    pub dropped_lines: u64,
    pub lost_bytes: u64,
}

impl Ledger {
    /// As it is now.
    #[track_caller]
    pub fn of(agent: &Agent) -> Self {
        serde_json::from_value(agent.admin("/api/v1/status").json()["ledger"].clone()).expect("a ledger")
    }
}

/// Waits until nothing is in flight, then checks that the sum is exact: read = acked + dead letters + dropped, nothing lost.
/// The agent counts from its last start on.
#[track_caller]
pub fn assert_ledger(agent: &Agent) -> Ledger {
    let ledger = wait_until("nothing is in flight", seconds(60), || match Ledger::of(agent) {
        ledger if ledger.in_flight_lines == 0 => Ok(ledger),
        ledger => Err(format!("{ledger:?}")),
    });
    assert_eq!(
        ledger.read_lines,
        ledger.acked_lines + ledger.dead_letter_lines + ledger.dropped_lines,
        "{ledger:?}"
    );
    if ledger.dead_letter_lines + ledger.dropped_lines == 0 {
        assert_eq!(ledger.read_bytes, ledger.acked_bytes, "{ledger:?}");
    }
    assert_eq!(ledger.lost_bytes, 0, "{ledger:?}");
    ledger
}
