//! What the tests of several parts share.

use proptest::prelude::ProptestConfig;

use crate::logs::record::{Container, Origin};

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
