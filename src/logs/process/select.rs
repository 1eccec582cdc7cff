//! Which files a rule is for.

use glob::Pattern;

use crate::logs::record::{FileFacts, path_text};

/// What a rule asks of a file; each list that is not empty has to have one pattern that fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Of the pod's namespace.
    pub namespaces: Vec<Pattern>,
    /// Of the pod's name.
    pub pods: Vec<Pattern>,
    /// Of the container's name.
    pub containers: Vec<Pattern>,
    /// Of the file's path.
    pub files: Vec<Pattern>,
    /// Of the pod's labels, each of which has to fit.
    pub labels: Vec<(String, Pattern)>,
}

impl Selection {
    /// Whether a file is meant.
    pub fn fits(&self, facts: &FileFacts) -> bool {
        let container = facts.origin.container();
        let label = |key: &String| facts.pod.known().and_then(|pod| pod.labels.get(key));
        let is_one = |patterns: &[Pattern], text: Option<&str>| {
            patterns.is_empty()
                || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        is_one(&self.namespaces, container.map(|container| container.namespace.as_str()))
            && is_one(&self.pods, container.map(|container| container.pod.as_str()))
            && is_one(&self.containers, container.map(|container| container.name.as_str()))
            && (self.files.is_empty() || is_one(&self.files, Some(&path_text(&facts.path))))
            && self.labels.iter().all(|(key, pattern)| label(key).is_some_and(|value| pattern.matches(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        logs::record::{FileId, Origin},
        testing::{container, labelled_pod},
    };

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text).expect("a pattern")).collect()
    }

    #[test]
    fn every_list_has_to_fit() {
        // shop/cart-1/app
        let facts = |origin| FileFacts::new(FileId([0; 12]), "/var/log/pods/a/0.log", origin);
        let (pod, plain) = (facts(container(0)), facts(Origin::Plain));
        let labelled = FileFacts { pod: labelled_pod(&[("app", "cart")]), ..pod.clone() };
        let fits = |selection: &Selection| selection.fits(&labelled);
        let none = Selection::default();
        assert!(fits(&none) && none.fits(&plain));
        let one = Selection { namespaces: patterns(&["kube-*", "shop"]), ..Selection::default() };
        assert!(fits(&one) && !one.fits(&plain));
        let two = Selection { pods: patterns(&["cart-*"]), containers: patterns(&["nginx"]), ..one.clone() };
        assert!(!fits(&two));
        let file = Selection { files: patterns(&["/var/log/**/*.log"]), ..one.clone() };
        assert!(fits(&file));
        let asks =
            |value| Selection { labels: vec![("app".into(), patterns(&[value])[0].clone())], ..one.clone() };
        assert!(fits(&asks("c*")) && !fits(&asks("till")));
        assert!(!asks("c*").fits(&pod));
    }
}
