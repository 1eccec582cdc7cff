//! What the tests of several parts share.

use std::sync::Arc;

use proptest::prelude::ProptestConfig;

use crate::{
    kubernetes::pod::Pod,
    logs::record::{Container, Origin, PodFacts},
};

/// The number of cases of a slow property test: `usual`, unless `PROPTEST_CASES` says otherwise as `make soak` does.
pub fn cases(usual: u32) -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = usual;
    }
    config
}

/// The file of a container that was restarted so often.
pub fn container(restart: u32) -> Origin {
    let container = Container {
        namespace: "shop".into(),
        pod: "cart-1".into(),
        uid: "u-1".into(),
        name: "app".into(),
        restart,
    };
    Origin::Container(container.into())
}

/// The pod of that container, with these labels.
pub fn labelled_pod(labels: &[(&str, &str)]) -> PodFacts {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    PodFacts::Known(Arc::new(Pod { labels, ..Pod::default() }))
}
