//! How indices grow old: a new one before the present one is too big, and the end of the old ones, if somebody said when.

use serde_json::{Value, json};

use super::{
    server::{Lifecycle, Server},
    targets::Target,
};
use crate::logs::index::Period;

/// A data stream's present index is followed by a new one at this size, in its bytes.
const ROLLOVER_SIZE: &str = "50gb";
/// Or at this age, in days.
const ROLLOVER_DAYS: u64 = 30;

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// This policy, as the server takes it.
    Policy(Value),
    /// These settings of the data streams in the template.
    InTemplate(Value),
    /// Nothing, and why.
    Nothing(&'static str),
}

/// How the indices of a target grow old on a server; `retention` in days, without it nothing is ever deleted.
pub fn plan(server: &Server, target: &Target, retention: Option<u64>) -> Plan {
    let written = match (target.is_stream, target.period) {
        // A new index when the last one was written for so long.
        (true, _) => None,
        (false, Some(period)) => Some(days(period)),
        (false, None) => {
            return Plan::Nothing("an index without a date in its name is never old as a whole");
        }
    };
    if written.is_some() && retention.is_none() {
        return Plan::Nothing(
            "indices with a date in their names need none, unless --retention says when they are deleted",
        );
    }
    match server.lifecycle() {
        Lifecycle::Ilm => Plan::Policy(ilm(server, written, retention)),
        Lifecycle::Ism => Plan::Policy(ism(server, target, written, retention)),
        Lifecycle::InTemplate if target.is_stream => match retention {
            Some(days) => Plan::InTemplate(json!({"enabled": true, "data_retention": format!("{days}d")})),
            None => Plan::Nothing("this server looks after its data streams itself"),
        },
        Lifecycle::InTemplate => Plan::Nothing("this server looks after data streams only"),
        Lifecycle::None => Plan::Nothing("this server has no lifecycle policies"),
    }
}

/// How long an index with a date is written to, in days.
fn days(period: Period) -> u64 {
    match period {
        Period::Hour | Period::Day => 1,
        Period::Week => 7,
        Period::Month => 31,
        Period::Year => 366,
    }
}

/// Often enough that an index does not live much longer than its first line has to.
fn rollover_days(retention: Option<u64>) -> u64 {
    retention.map_or(ROLLOVER_DAYS, |days| (days / 4).clamp(1, ROLLOVER_DAYS))
}

/// What the server fills in by itself is written here too: it is compared with what is stored.
fn ilm(server: &Server, written: Option<u64>, retention: Option<u64>) -> Value {
    let mut phases = json!({});
    if written.is_none() {
        let size = if server.is_elastic_from((7, 13)) { "max_primary_shard_size" } else { "max_size" };
        let age = format!("{}d", rollover_days(retention));
        let actions = json!({"rollover": {size: ROLLOVER_SIZE, "max_age": age}});
        phases["hot"] = json!({"min_age": "0ms", "actions": actions});
    }
    if let Some(days) = retention {
        // The age of an index is reckoned from its rollover, or else from its making.
        let age = format!("{}d", days + written.unwrap_or(0));
        let actions = json!({"delete": {"delete_searchable_snapshot": true}});
        phases["delete"] = json!({"min_age": age, "actions": actions});
    }
    json!({"phases": phases})
}

fn ism(server: &Server, target: &Target, written: Option<u64>, retention: Option<u64>) -> Value {
    let retry = json!({"count": 3, "backoff": "exponential", "delay": "1m"});
    let rollover = rollover_days(retention);
    let actions = match written {
        None => {
            let conditions = json!({"min_size": ROLLOVER_SIZE, "min_index_age": format!("{rollover}d")});
            json!([{"retry": retry, "rollover": conditions}])
        }
        Some(_) => json!([]),
    };
    let mut states = vec![json!({"name": "hot", "actions": actions, "transitions": []})];
    if let Some(days) = retention {
        let condition = match written {
            None if server.version >= (2, 4) => json!({"min_rollover_age": format!("{days}d")}),
            // An index is as old as its first line, so its last one needs the time of the rollover more.
            None => json!({"min_index_age": format!("{}d", days + rollover)}),
            Some(written) => json!({"min_index_age": format!("{}d", days + written)}),
        };
        states[0]["transitions"] = json!([{"state_name": "delete", "conditions": condition}]);
        let delete = json!([{"retry": retry, "delete": {}}]);
        states.push(json!({"name": "delete", "actions": delete, "transitions": []}));
    }
    json!({
        "default_state": "hot",
        "states": states,
        "ism_template": [{"index_patterns": target.patterns, "priority": super::PRIORITY}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(tagline: &str, version: &Value) -> Server {
        Server::read(&json!({"tagline": tagline, "version": version})).expect("a server")
    }

    fn elastic(number: &str) -> Server {
        server("You Know, for Search", &json!({"number": number, "build_flavor": "default"}))
    }

    fn open(number: &str) -> Server {
        server("The OpenSearch Project", &json!({"distribution": "opensearch", "number": number}))
    }

    fn target(is_stream: bool, period: Option<Period>) -> Target {
        Target { name: "t".into(), patterns: vec!["p-*".into()], is_stream, streams: Vec::new(), period }
    }

    fn policy(plan: Plan) -> Value {
        match plan {
            Plan::Policy(policy) => policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_deleted_unless_somebody_said_when() {
        let (stream, daily) = (target(true, None), target(false, Some(Period::Day)));
        for server in [elastic("7.10.2"), elastic("9.5.3"), open("1.3.0"), open("3.9.0")] {
            assert!(!policy(plan(&server, &stream, None)).to_string().contains("delete"));
            assert!(matches!(plan(&server, &daily, None), Plan::Nothing(_)));
            assert!(policy(plan(&server, &daily, Some(7))).to_string().contains("delete"));
            assert!(matches!(plan(&server, &target(false, None), Some(7)), Plan::Nothing(_)));
        }
    }

    #[test]
    fn ilm_reckons_from_the_rollover() {
        let phases = policy(plan(&elastic("9.5.3"), &target(true, None), Some(8)))["phases"].clone();
        assert_eq!(
            phases["hot"]["actions"]["rollover"],
            json!({"max_primary_shard_size": "50gb", "max_age": "2d"})
        );
        assert_eq!(phases["delete"]["min_age"], "8d");
        let old = policy(plan(&elastic("7.10.2"), &target(true, None), None));
        assert_eq!(old["phases"]["hot"]["actions"]["rollover"]["max_size"], "50gb");
        let weekly =
            policy(plan(&elastic("9.5.3"), &target(false, Some(Period::Week)), Some(8)))["phases"].clone();
        assert_eq!((&weekly["delete"]["min_age"], weekly.get("hot")), (&json!("15d"), None));
    }

    #[test]
    fn ism_never_deletes_a_line_before_its_time() {
        let condition = |number: &str, target: &Target| {
            policy(plan(&open(number), target, Some(8)))["states"][0]["transitions"][0]["conditions"].clone()
        };
        assert_eq!(condition("3.9.0", &target(true, None)), json!({"min_rollover_age": "8d"}));
        assert_eq!(condition("1.3.0", &target(true, None)), json!({"min_index_age": "10d"}));
        assert_eq!(condition("3.9.0", &target(false, Some(Period::Day))), json!({"min_index_age": "9d"}));
    }

    #[test]
    fn serverless_says_it_in_the_template() {
        let server =
            server("You Know, for Search", &json!({"number": "8.11.0", "build_flavor": "serverless"}));
        let planned = plan(&server, &target(true, None), Some(8));
        assert_eq!(planned, Plan::InTemplate(json!({"enabled": true, "data_retention": "8d"})));
        assert!(matches!(plan(&server, &target(true, None), None), Plan::Nothing(_)));
    }
}
