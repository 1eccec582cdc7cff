//! What became of the lines that pods wrote.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::support::{Elastic, same, seconds, wait_until};

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

/// Waits until every line of a pod that was deleted is there, up to its last, then looks that each is there once.
#[track_caller]
pub fn assert_each_once(elastic: &Elastic, index: &str, pod: &str, log: impl Fn() -> String) -> u64 {
    let last = format!("{pod} ends after ");
    let (lines, mut found) =
        wait_until("the pod's last line is a document, and all before", seconds(240), || {
            let mut messages = Vec::new();
            elastic.count(index)?;
            elastic.each(index, |found| {
                if found.message.starts_with(&format!("{pod} ")) {
                    messages.push(found.message);
                }
            });
            let end = messages.iter().find_map(|message| message.strip_prefix(&last)?.parse::<u64>().ok());
            match end {
                Some(lines) if messages.len() as u64 > lines => Ok((lines, messages)),
                _ => {
                    thread::sleep(Duration::from_millis(500));
                    Err(format!("{} lines of {end:?}; the agent says:\n{}", messages.len(), log()))
                }
            }
        });
    found.retain(|message| !message.starts_with(&last));
    let number = |message: &String| message.split(' ').nth(2).and_then(|number| number.parse::<u64>().ok());
    let mut numbers: Vec<u64> = found.iter().filter_map(number).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..lines).collect();
    assert!(numbers == expected, "{} lines of {pod}, {lines} were written", numbers.len());
    lines
}

/// All documents, while there are fewer than 10,000.
fn newest(elastic: &Elastic, index: &str) -> Result<Vec<Value>, String> {
    match elastic.count(index)? {
        0 => Err("no document".into()),
        _ => Ok(elastic.documents(index)),
    }
}
