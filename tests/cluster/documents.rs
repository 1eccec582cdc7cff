//! What became of the lines that pods wrote.

use std::{collections::BTreeMap, thread, time::Duration};

use serde_json::Value;

use crate::support::{Elastic, seconds, wait_until};

/// The lines of one of [`Node::start_writer`](crate::node::Node::start_writer)'s pods among documents.
pub fn of<'a>(documents: &'a [Value], pod: &str) -> Vec<&'a Value> {
    let prefix = format!("{pod} ");
    let is_its =
        |document: &&Value| document["message"].as_str().is_some_and(|text| text.starts_with(&prefix));
    documents.iter().filter(is_its).collect()
}

/// Waits for a pod's first line.
#[track_caller]
pub fn first(elastic: &Elastic, index: &str, pod: &str, log: impl Fn() -> String) -> Value {
    wait_until("the pod's first line is a document", seconds(120), || {
        let documents = newest(elastic, index)?;
        let first = of(&documents, pod).first().map(|first| (*first).clone());
        first.ok_or_else(|| format!("{} other documents; the agent says:\n{}", documents.len(), log()))
    })
}

/// Waits until every line of pods that were deleted is there, up to their last, then looks that each is there once. How many
/// lines that were.
#[track_caller]
pub fn assert_each_once(elastic: &Elastic, index: &str, pods: &[&str], log: impl Fn() -> String) -> u64 {
    let found = wait_until("the last line of each pod is a document, and all before", seconds(240), || {
        let mut found: BTreeMap<String, Lines> =
            pods.iter().map(|pod| ((*pod).to_owned(), Lines::default())).collect();
        elastic.count(index)?;
        elastic.each(index, |document| {
            let (pod, rest) = document.message.split_once(' ').unwrap_or_default();
            if let Some(lines) = found.get_mut(pod) {
                lines.take(rest);
            }
        });
        let missing =
            found.iter().find(|(_, lines)| lines.end.is_none_or(|end| (lines.numbers.len() as u64) < end));
        let Some((pod, lines)) = missing else { return Ok(found) };
        let seen = format!("{} lines of {pod}, which ends after {:?}", lines.numbers.len(), lines.end);
        thread::sleep(Duration::from_millis(500));
        Err(format!("{seen}; the agent says:\n{}", log()))
    });
    let mut total = 0;
    for (pod, mut lines) in found {
        let end = lines.end.unwrap_or_default();
        lines.numbers.sort_unstable();
        let expected: Vec<u64> = (0..end).collect();
        assert!(lines.numbers == expected, "{} lines of {pod}, {end} were written", lines.numbers.len());
        total += end;
    }
    total
}

/// What there is of one pod's lines.
#[derive(Debug, Default)]
struct Lines {
    numbers: Vec<u64>,
    /// How many it wrote, which its last line says.
    end: Option<u64>,
}

impl Lines {
    /// `line 7 of an order`, `ends after 8`.
    fn take(&mut self, text: &str) {
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("line"), Some(number), _) => self.numbers.extend(number.parse::<u64>()),
            (Some("ends"), _, Some(count)) => self.end = count.parse().ok(),
            _ => {}
        }
    }
}

/// All documents, while there are fewer than 10,000.
fn newest(elastic: &Elastic, index: &str) -> Result<Vec<Value>, String> {
    match elastic.count(index)? {
        0 => Err("no document".into()),
        _ => Ok(elastic.documents(index)),
    }
}
