//! What one of environment, file and flags says, and how layers are laid upon each other.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};

use super::{
    collectors::Choices,
    keys::{Draft, Key, Set},
    mistakes::{Mistakes, Origin},
    options::Source,
    rules::Placed,
};
use crate::logs::process::{Redaction, rules::Rule};

/// Everything that one of environment, file and flags says.
#[derive(Debug, Default)]
pub struct Layer {
    pub written: Vec<Written>,
    pub sources: Option<(Vec<Source>, Origin)>,
    /// Headers for requests to Elasticsearch.
    pub headers: Option<(Vec<(HeaderName, HeaderValue)>, Origin)>,
    pub rules: Placed<Vec<Rule>>,
    pub redactions: Placed<Vec<Redaction>>,
    pub collectors: Choices,
    /// Where a section `elasticsearch` begins: one without hosts is a mistake.
    pub elastic_section: Option<Origin>,
    /// Hosts were meant, and that mistake is noted.
    pub hosts_misspelt: bool,
    pub notes: Vec<String>,
}

/// One setting as written.
#[derive(Debug)]
pub struct Written {
    pub key: &'static Key,
    pub origin: Origin,
    pub values: Vec<(String, Origin)>,
}

impl Written {
    /// A setting with one value.
    pub fn one(key: &'static Key, text: impl Into<String>, origin: Origin) -> Self {
        Self { key, values: vec![(text.into(), origin.clone())], origin }
    }
}

/// Where each setting comes from; what is not here is a default.
pub type Origins = BTreeMap<&'static str, Origin>;

/// Lays the settings of one layer upon the lower ones.
pub fn apply(written: &[Written], draft: &mut Draft, origins: &mut Origins, mistakes: &mut Mistakes) {
    // One layer's password must not meet another layer's user: who speaks of auth says all of it.
    if written.iter().any(says_auth) {
        draft.auth = super::keys::AuthDraft::default();
        origins.retain(|name, _| !name.starts_with(AUTH));
    }
    let says = |key: &str| written.iter().find(|one| one.key.name == key);
    match (says(HOSTS), says(CLOUD_ID)) {
        (Some(_), Some(cloud)) => {
            mistakes.add_value(
                &cloud.origin,
                CLOUD_ID,
                "hosts and cloud_id both say where the servers are; keep one",
            );
        }
        (Some(_), None) => draft.cloud_id = None,
        (None, Some(_)) => {
            draft.elastic.hosts.clear();
            origins.remove(HOSTS);
        }
        (None, None) => {}
    }
    for one in written {
        let set = match &one.key.set {
            Set::One(set) | Set::OneOrEmpty(set) => set,
            Set::Many(clear, push) | Set::List(clear, push) => {
                clear(draft);
                push
            }
        };
        for (text, origin) in &one.values {
            if let Err(error) = set(draft, text) {
                mistakes.add_value(origin, one.key.name, &error);
            }
        }
        origins.insert(one.key.name, one.origin.clone());
    }
}

const HOSTS: &str = "elasticsearch.hosts";
const CLOUD_ID: &str = "elasticsearch.cloud_id";
const AUTH: &str = "elasticsearch.auth.";

fn says_auth(written: &Written) -> bool {
    written.key.name.starts_with(AUTH) && written.values.iter().any(|(text, _)| !text.is_empty())
}
