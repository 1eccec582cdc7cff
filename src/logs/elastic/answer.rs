//! What an answer to a bulk request means for each document: pure functions over status and body.

use std::borrow::Cow;

use serde::Deserialize;

use super::repair::Blame;
use crate::logs::status::{Obstacle, Reason};

/// What becomes of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the index, now or from an earlier try.
    Done,
    /// The server is busy or hurt: the same document again, later.
    Retry(Reason),
    /// Nothing is wrong with the document: somebody has to grant, open or create something.
    Hold(Reason),
    /// It will never be accepted as it is: why, and what in it is to blame where the server says so.
    Reject(String, Option<Blame>),
}

/// What becomes of a whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Every document is done.
    AllDone,
    /// One verdict and status per document, in the order they were sent.
    Items(Vec<(u16, Verdict)>),
    /// All of it again, later.
    Retry(Reason),
    /// All of it again, when somebody has mended what is said here.
    Hold(Reason),
    /// The request can't be taken as a whole: its halves may be.
    Split(String),
}

/// The answer's fields that matter, to ask for no others: a clean answer then takes a few bytes per document.
pub const FILTER_PATH: &str =
    "errors,items.*.status,items.*.error.type,items.*.error.reason,error.type,error.reason";

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    errors: bool,
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    create: Outcome<'a>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    status: u16,
    #[serde(borrow)]
    error: Option<Cause<'a>>,
}

#[derive(Deserialize, Default)]
struct Cause<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: Cause<'a>,
}

/// Judges an answer to a bulk request of `sent` documents.
pub fn judge(status: u16, body: &[u8], sent: usize) -> Answer {
    match status {
        200..=299 => judge_items(body, sent),
        413 => Answer::Split("HTTP 413: the request is larger than http.max_content_length".into()),
        429 => Answer::Retry(failure(Obstacle::Busy, status, body)),
        500..=599 => Answer::Retry(failure(Obstacle::ServerError, status, body)),
        400 => judge_bad_request(status, body),
        401 => Answer::Hold(failure(Obstacle::Unauthorized, status, body)),
        _ if is_said_by_the_server(body) || status == 403 => {
            Answer::Hold(failure(refusal(status, body), status, body))
        }
        _ => {
            let text =
                format!("HTTP {status}: this is not an answer of Elasticsearch; check elasticsearch.hosts");
            Answer::Hold(Reason::new(Obstacle::Refused, text))
        }
    }
}

/// Only the server itself knows that a document is to blame; others say this of every request.
fn judge_bad_request(status: u16, body: &[u8]) -> Answer {
    match is_said_by_the_server(body) {
        true => Answer::Split(failure(Obstacle::Refused, status, body).text),
        false => Answer::Hold(failure(Obstacle::Refused, status, body)),
    }
}

/// What is in the way of a request that the server refuses as a whole.
fn refusal(status: u16, body: &[u8]) -> Obstacle {
    let failure = serde_json::from_slice::<Failure<'_>>(body);
    obstacle(status, &failure.map(|failure| failure.error).unwrap_or_default())
}

/// What is in the way when no document is to blame.
fn obstacle(status: u16, cause: &Cause<'_>) -> Obstacle {
    match (status, &*cause.kind) {
        (_, "index_closed_exception") => Obstacle::IndexClosed,
        (_, "cluster_block_exception") => Obstacle::ReadOnly,
        (401, _) => Obstacle::Unauthorized,
        (403, _) => Obstacle::Forbidden,
        (404, _) => Obstacle::IndexMissing,
        (429, _) => Obstacle::Busy,
        (500.., _) => Obstacle::ServerError,
        _ => Obstacle::Refused,
    }
}

fn judge_items(body: &[u8], sent: usize) -> Answer {
    let odd = |text: String| Answer::Retry(Reason::new(Obstacle::ServerError, text));
    let answer: BulkAnswer<'_> = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return odd(format!("the answer to a bulk request is cut or no JSON: {error}")),
    };
    if !answer.errors {
        return Answer::AllDone;
    }
    if answer.items.len() != sent {
        let answered = answer.items.len();
        return odd(format!("the answer speaks of {answered} documents, {sent} were sent"));
    }
    Answer::Items(
        answer.items.into_iter().map(|item| (item.create.status, judge_item(item.create))).collect(),
    )
}

fn judge_item(outcome: Outcome<'_>) -> Verdict {
    let status = outcome.status;
    let cause = outcome.error.unwrap_or_default();
    let sentence = || format!("{status} {}: {}", cause.kind, cause.reason);
    let reason = |obstacle| Reason::new(obstacle, sentence());
    match status {
        // A conflict on its own id says that an earlier try got through.
        200..=299 | 409 => Verdict::Done,
        429 | 500..=599 => Verdict::Retry(reason(obstacle(status, &cause))),
        401 | 403 | 404 => Verdict::Hold(reason(obstacle(status, &cause))),
        _ => match blameless(&cause) {
            Some(obstacle) => Verdict::Hold(reason(obstacle)),
            None => Verdict::Reject(sentence(), Blame::of(&cause.kind, &cause.reason)),
        },
    }
}

/// What the server says with 400, too, although it would say it of any document.
fn blameless(cause: &Cause<'_>) -> Option<Obstacle> {
    match &*cause.kind {
        "index_closed_exception" => Some(Obstacle::IndexClosed),
        "validation_exception" if cause.reason.contains("maximum") && cause.reason.contains("shards") => {
            Some(Obstacle::ShardLimit)
        }
        "illegal_argument_exception" if cause.reason.starts_with("pipeline with id [") => {
            Some(Obstacle::IndexMissing)
        }
        _ => None,
    }
}

fn is_said_by_the_server(body: &[u8]) -> bool {
    serde_json::from_slice::<Failure<'_>>(body).is_ok_and(|failure| !failure.error.kind.is_empty())
}

fn failure(obstacle: Obstacle, status: u16, body: &[u8]) -> Reason {
    let text = match serde_json::from_slice::<Failure<'_>>(body) {
        Ok(Failure { error: Cause { kind, reason } }) => format!("HTTP {status} {kind}: {reason}"),
        Err(_) => format!("HTTP {status}"),
    };
    Reason::new(obstacle, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(statuses: &[(u16, &str)]) -> Vec<u8> {
        let items: Vec<_> = statuses
            .iter()
            .map(|(status, kind)| match *kind {
                "" => serde_json::json!({"create": {"status": status}}),
                kind => serde_json::json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}}),
            })
            .collect();
        serde_json::to_vec(&serde_json::json!({"errors": true, "items": items})).expect("JSON")
    }

    #[test]
    fn a_clean_answer_confirms_all() {
        assert_eq!(judge(200, br#"{"errors":false}"#, 3), Answer::AllDone);
    }

    /// Statuses and types as a real Elasticsearch 9 gives them.
    #[test]
    fn each_document_is_judged_alone() {
        let body = items(&[
            (201, ""),
            (409, "version_conflict_engine_exception"),
            (429, "es_rejected_execution_exception"),
            (503, "unavailable_shards_exception"),
            (403, "cluster_block_exception"),
            (404, "index_not_found_exception"),
            (400, "document_parsing_exception"),
        ]);
        let Answer::Items(verdicts) = judge(200, &body, 7) else { panic!("items") };
        let verdicts: Vec<_> = verdicts.into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts[0], Verdict::Done);
        assert_eq!(verdicts[1], Verdict::Done);
        let busy = Reason::new(Obstacle::Busy, "429 es_rejected_execution_exception: why");
        assert_eq!(verdicts[2], Verdict::Retry(busy));
        assert!(matches!(&verdicts[3], Verdict::Retry(reason) if reason.obstacle == Obstacle::ServerError));
        assert!(matches!(&verdicts[4], Verdict::Hold(reason) if reason.obstacle == Obstacle::ReadOnly));
        assert!(matches!(&verdicts[5], Verdict::Hold(reason) if reason.obstacle == Obstacle::IndexMissing));
        assert_eq!(verdicts[6], Verdict::Reject("400 document_parsing_exception: why".into(), None));
    }

    #[test]
    fn a_whole_refusal_loses_nothing() {
        let busy = br#"{"error":{"type":"es_rejected_execution_exception","reason":"full"},"status":429}"#;
        assert_eq!(
            judge(429, busy, 1),
            Answer::Retry(Reason::new(Obstacle::Busy, "HTTP 429 es_rejected_execution_exception: full"))
        );
        assert!(matches!(judge(503, b"", 1), Answer::Retry(_)));
        assert!(matches!(judge(401, b"", 1), Answer::Hold(_)));
        assert!(matches!(judge(403, b"", 1), Answer::Hold(_)));
        for status in [302, 404, 405] {
            let Answer::Hold(reason) = judge(status, b"<html>moved</html>", 1) else { panic!("held") };
            assert!(reason.text.ends_with("check elasticsearch.hosts"), "{reason:?}");
        }
        assert!(matches!(judge(413, b"", 1), Answer::Split(_)));
        let malformed = br#"{"error":{"type":"x_content_parse_exception","reason":"bad"},"status":400}"#;
        assert!(matches!(judge(400, malformed, 1), Answer::Split(_)));
        let proxy = b"<html>The plain HTTP request was sent to HTTPS port</html>";
        assert!(matches!(judge(400, proxy, 1), Answer::Hold(_)));
    }

    /// Reasons as a real Elasticsearch 9 gives them.
    #[test]
    fn what_is_no_document_s_fault_is_no_dead_letter() {
        let limit = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] \
                     maximum normal shards open;";
        for (status, kind, reason, expected) in [
            (400, "index_closed_exception", "closed", Obstacle::IndexClosed),
            (400, "validation_exception", limit, Obstacle::ShardLimit),
            (
                400,
                "illegal_argument_exception",
                "pipeline with id [x] does not exist",
                Obstacle::IndexMissing,
            ),
            (
                403,
                "security_exception",
                "action [indices:data/write/bulk[s]] is unauthorized",
                Obstacle::Forbidden,
            ),
            (429, "cluster_block_exception", "disk usage exceeded flood-stage watermark", Obstacle::ReadOnly),
        ] {
            let error = serde_json::json!({"type": kind, "reason": reason});
            let item = serde_json::json!({"create": {"status": status, "error": error}});
            let body = serde_json::json!({"errors": true, "items": [item]}).to_string();
            let Answer::Items(verdicts) = judge(200, body.as_bytes(), 1) else { panic!("items") };
            let (Verdict::Hold(why) | Verdict::Retry(why)) = &verdicts[0].1 else { panic!("{verdicts:?}") };
            assert_eq!(why.obstacle, expected, "{kind}");
        }
        let unknown =
            br#"{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}"#;
        assert!(
            matches!(judge(401, unknown, 1), Answer::Hold(why) if why.obstacle == Obstacle::Unauthorized)
        );
        let forbidden = br#"{"error":{"type":"security_exception","reason":"is unauthorized"},"status":403}"#;
        assert!(matches!(judge(403, forbidden, 1), Answer::Hold(why) if why.obstacle == Obstacle::Forbidden));
    }

    #[test]
    fn a_cut_or_short_answer_is_no_confirmation() {
        let body = items(&[(201, ""), (201, "")]);
        assert!(matches!(judge(200, &body[..body.len() - 1], 2), Answer::Retry(_)));
        assert!(matches!(judge(200, &body, 3), Answer::Retry(_)));
        assert!(matches!(judge(200, b"", 3), Answer::Retry(_)));
    }

    proptest! {
        #[test]
        fn no_answer_panics_or_confirms_by_accident(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let answer = judge(status, &body, 1);
            prop_assert!(answer != Answer::AllDone || body.windows(5).any(|window| window == b"false"));
        }
    }
}
