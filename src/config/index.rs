//! The name of the index or data stream: `logs-{dataset}-default`, `logstash-%Y.%m.%d`.

use super::mistakes::did_you_mean;

/// What may stand in braces: known from a file's path alone.
pub const FIELDS: &[&str] = &[
    "dataset",
    "host.name",
    "kubernetes.namespace",
    "kubernetes.node.name",
    "kubernetes.pod.name",
    "kubernetes.container.name",
];

/// The pattern itself, when an index of such a name can exist.
pub fn check(pattern: &str) -> Result<String, String> {
    let sample = without_fields(pattern)?;
    let sample = jiff::fmt::strtime::format(sample.as_bytes(), &jiff::Zoned::default())
        .map_err(|error| format!("'{pattern}' has a date part that is not understood: {error}"))?;
    if sample.is_empty() || sample.len() > 200 {
        return Err("expected a name of 1 to 200 characters, such as logs-{dataset}-default".into());
    }
    if let Some(odd) = sample.chars().find(|c| c.is_uppercase() || r#"\/*?"<>|,#: "#.contains(*c)) {
        return Err(format!("'{pattern}' can't be an index: '{odd}' is not allowed in its name"));
    }
    if sample.starts_with(['-', '_', '+']) {
        return Err(format!("'{pattern}' can't be an index: it must not begin with -, _ or +"));
    }
    Ok(pattern.to_owned())
}

/// The pattern with a letter for each field.
fn without_fields(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (field, next) =
            after.split_once('}').ok_or_else(|| format!("'{pattern}' has a {{ without a }}; close it"))?;
        if !FIELDS.contains(&field) {
            let near = did_you_mean(field, FIELDS.iter().copied());
            let near = if near.is_empty() { format!("; write one of {}", FIELDS.join(", ")) } else { near };
            return Err(format!("{{{field}}} is not a field{near}"));
        }
        out.push_str(before);
        out.push('x');
        rest = next;
    }
    if rest.contains('}') {
        return Err(format!("'{pattern}' has a }} without a {{"));
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_fields_are_understood() {
        for good in ["logs-{dataset}-default", "logstash-%Y.%m.%d", "app-{kubernetes.namespace}", "a"] {
            assert_eq!(check(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_elasticsearch_would_refuse_is_refused() {
        for bad in [
            "",
            "Logs",
            "a b",
            "-a",
            "a/b",
            "{dataset",
            "dataset}",
            "{nothing}",
            "a-%Q!",
            "%B",
            &"a".repeat(300),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("{datset}").is_err_and(|error| error.ends_with("did you mean dataset?")));
    }
}
