//! The API server's way: one list of this node's pods, then one watch of them. Nothing is ever asked of the whole cluster.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::timeout;

use super::{
    client::{AskError, Client},
    pod::{Pod, RawPod, Wanted},
};

/// A list of a node's pods: some hundred of ten kilobytes each.
const LIST_LIMIT: usize = 64 << 20;
/// One event of a watch; objects in etcd are at most 1.5 MiB.
const EVENT_LIMIT: usize = 8 << 20;
/// How long a watch lasts: the server ends it then, and it is begun anew from where it was. Long, for each costs a request; each
/// node has its own length, so that they are not begun anew together.
const WATCH_SECONDS: std::ops::Range<u64> = 1800..3600;
/// A watch that says nothing for so long beyond its length, not even goodbye, is a dead connection.
const SILENCE: Duration = Duration::from_secs(60);

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The watch has begun.
    Begun,
    /// A pod is there, new or changed.
    There(Box<Pod>),
    /// The pod of this uid was deleted.
    Gone(String),
    /// The version of the resources is too old to go on from: list again.
    Expired,
}

/// The watch of the pods of one node.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    selector: String,
    wanted: Wanted,
    version: String,
    /// How long each watch lasts, in seconds.
    seconds: u64,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    #[serde(default)]
    items: Option<Vec<RawPod>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
}

impl Watch {
    /// For the pods of `node`; `wanted` is kept of them. `seed` makes this node's watches unlike others in their length.
    pub fn new(client: Client, node: &str, wanted: Wanted, seed: u64) -> Self {
        // A node's name is a DNS name: nothing in it has to be escaped in a URL but the sign between.
        let selector = format!("fieldSelector=spec.nodeName%3D{node}");
        let seconds = WATCH_SECONDS.start + seed % (WATCH_SECONDS.end - WATCH_SECONDS.start);
        Self { client, selector, wanted, version: String::new(), seconds }
    }

    /// Every pod of the node. `resourceVersion=0`: from the server's memory, never from etcd.
    pub async fn list(&mut self) -> Result<Vec<Pod>, AskError> {
        let path = format!("/api/v1/pods?{}&resourceVersion=0", self.selector);
        let body = self.client.get(&path, LIST_LIMIT).await?;
        let list: List =
            serde_json::from_slice(&body).map_err(|error| AskError::Answer(error.to_string()))?;
        self.version = list.metadata.resource_version;
        let items = list.items.unwrap_or_default().into_iter();
        Ok(items.filter_map(|raw| Pod::read(raw, &self.wanted)).collect())
    }

    /// Follows what changes since the list or the last watch until the server ends it; `take` gets each event.
    pub async fn follow(&mut self, mut take: impl FnMut(Event)) -> Result<(), AskError> {
        let path = format!(
            "/api/v1/pods?{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            self.selector, self.seconds, self.version
        );
        let mut stream = match self.client.open(&path).await {
            Err(AskError::Status { status }) if status.as_u16() == 410 => {
                take(Event::Expired);
                return Ok(());
            }
            opened => opened?,
        };
        take(Event::Begun);
        let patience = Duration::from_secs(self.seconds) + SILENCE;
        let end = Instant::now() + patience;
        let mut lines = Lines::default();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(piece) = timeout(left, stream.next()).await.map_err(|_| AskError::Late)?? else {
                return Ok(());
            };
            lines.push(&piece)?;
            while let Some(line) = lines.next() {
                if line.is_empty() {
                    continue;
                }
                let event = read_event(&line, &self.wanted, &mut self.version)?;
                let is_last = event == Some(Event::Expired);
                if let Some(event) = event {
                    take(event);
                }
                if is_last {
                    return Ok(());
                }
            }
        }
    }
}

/// One JSON object a line, cut anywhere.
#[derive(Default)]
struct Lines {
    held: Vec<u8>,
    from: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), AskError> {
        self.held.drain(..self.from);
        self.from = 0;
        if self.held.len() + piece.len() > EVENT_LIMIT {
            return Err(AskError::Answer(format!("an event is longer than {EVENT_LIMIT} bytes")));
        }
        self.held.extend_from_slice(piece);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = memchr::memchr(b'\n', &self.held[self.from..])?;
        let line = self.held[self.from..self.from + length].to_vec();
        self.from += length + 1;
        Some(line)
    }
}

/// Reads an event; `None` for one without news. The version to go on from moves with each.
fn read_event(line: &[u8], wanted: &Wanted, version: &mut String) -> Result<Option<Event>, AskError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a serde_json::value::RawValue,
    }
    #[derive(Deserialize)]
    struct Versioned {
        metadata: ListMetadata,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        code: u16,
        #[serde(default)]
        message: String,
    }

    let wrong = |error: serde_json::Error| AskError::Answer(error.to_string());
    let Envelope { kind, object } = serde_json::from_slice(line).map_err(wrong)?;
    if kind == "ERROR" {
        let status: Status = serde_json::from_str(object.get()).map_err(wrong)?;
        return match status.code {
            410 => Ok(Some(Event::Expired)),
            _ => Err(AskError::Answer(status.message)),
        };
    }
    let versioned: Versioned = serde_json::from_str(object.get()).map_err(wrong)?;
    *version = versioned.metadata.resource_version;
    if kind == "BOOKMARK" {
        return Ok(None);
    }
    let pod = Pod::read(serde_json::from_str(object.get()).map_err(wrong)?, wanted);
    Ok(pod.map(|pod| match kind {
        "DELETED" => Event::Gone(pod.uid),
        _ => Event::There(Box::new(pod)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> (Result<Option<Event>, AskError>, String) {
        let mut version = "1".to_owned();
        (read_event(text.as_bytes(), &Wanted::default(), &mut version), version)
    }

    #[test]
    fn events_move_the_version() {
        let pod = r#"{"metadata":{"uid":"u","name":"n","namespace":"s","resourceVersion":"7"}}"#;
        let (there, version) = event(&format!(r#"{{"type":"MODIFIED","object":{pod}}}"#));
        assert!(matches!(there, Ok(Some(Event::There(pod))) if pod.uid == "u"));
        assert_eq!(version, "7");
        let (gone, _) = event(&format!(r#"{{"type":"DELETED","object":{pod}}}"#));
        assert!(matches!(gone, Ok(Some(Event::Gone(uid))) if uid == "u"));
        let (none, version) =
            event(r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}"#);
        assert!(matches!(none, Ok(None)));
        assert_eq!(version, "9");
    }

    #[test]
    fn an_expired_version_is_told_from_other_errors() {
        let (expired, version) = event(r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#);
        assert!(matches!(expired, Ok(Some(Event::Expired))));
        assert_eq!(version, "1");
        let (other, _) = event(r#"{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}"#);
        assert_eq!(
            other.expect_err("an error").to_string(),
            "the answer could not be understood: etcd is away"
        );
        assert!(event("{").0.is_err());
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in ["{\"a\"", ":1}\n{", "}\n", "\n{\"b\":2}\n"] {
            lines.push(piece.as_bytes()).expect("short");
            while let Some(line) = lines.next() {
                seen.push(String::from_utf8(line).expect("text"));
            }
        }
        assert_eq!(seen, ["{\"a\":1}", "{}", "", "{\"b\":2}"]);
        assert!(lines.push(&vec![b' '; EVENT_LIMIT + 1]).is_err());
    }
}
