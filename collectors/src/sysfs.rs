//! Small readers for sysfs attributes: one value per file, often absent.

use std::{fs, io, path::Path};

use crate::{collector::CollectError, host};

/// The trimmed text of an attribute; `None` where the device or driver has no such attribute or refuses to say.
///
/// Drivers answer `EINVAL`, `EIO`, `ENODATA`, `EOPNOTSUPP` or `EPERM` for an attribute that the hardware lacks or that is
/// root-only; all of them mean "not known".
pub fn attribute(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A number out of an attribute, decimal or with `0x`.
pub fn number(path: &Path) -> Option<u64> {
    parse_number(&attribute(path)?)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The entries of a class directory, sorted; none when the class is absent.
pub fn entries(path: &Path) -> Result<Vec<String>, CollectError> {
    match host::list_dir(path) {
        Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hex() {
        assert_eq!(parse_number("1500"), Some(1500));
        assert_eq!(parse_number("0x1003"), Some(0x1003));
        assert_eq!(parse_number("fast"), None);
    }
}
