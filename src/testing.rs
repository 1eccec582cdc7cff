//! What the tests of several parts share.

use proptest::prelude::ProptestConfig;

/// The number of cases of a slow property test: `usual`, unless `PROPTEST_CASES` says otherwise as `make soak` does.
pub fn cases(usual: u32) -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = usual;
    }
    config
}
