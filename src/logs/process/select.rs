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

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What its path says.
    pub facts: &'a FileFacts,
    /// Its pod's labels; none as long as nobody was asked for them.
    pub labels: &'a [(String, String)],
}

impl Selection {
    /// Whether a file is meant.
    pub fn fits(&self, subject: Subject<'_>) -> bool {
        let container = subject.facts.origin.container();
        let is_one = |patterns: &[Pattern], text: Option<&str>| {
            patterns.is_empty()
                || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        is_one(&self.namespaces, container.map(|container| container.namespace.as_str()))
            && is_one(&self.pods, container.map(|container| container.pod.as_str()))
            && is_one(&self.containers, container.map(|container| container.name.as_str()))
            && (self.files.is_empty() || is_one(&self.files, Some(&path_text(&subject.facts.path))))
            && self.labels.iter().all(|(key, pattern)| {
                subject.labels.iter().any(|(known, value)| known == key && pattern.matches(value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        logs::record::{FileId, Origin},
        testing::container,
    };

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text).expect("a pattern")).collect()
    }

    #[test]
    fn every_list_has_to_fit() {
        // shop/cart-1/app
        let facts = |origin| FileFacts { id: FileId([0; 12]), path: "/var/log/pods/a/0.log".into(), origin };
        let (pod, plain) = (facts(container(0)), facts(Origin::Plain));
        let labels = [("app".to_owned(), "cart".to_owned())];
        let fits = |selection: &Selection| selection.fits(Subject { facts: &pod, labels: &labels });
        let none = Selection::default();
        assert!(fits(&none) && none.fits(Subject { facts: &plain, labels: &[] }));
        let one = Selection { namespaces: patterns(&["kube-*", "shop"]), ..Selection::default() };
        assert!(fits(&one) && !one.fits(Subject { facts: &plain, labels: &[] }));
        let two = Selection { pods: patterns(&["cart-*"]), containers: patterns(&["nginx"]), ..one.clone() };
        assert!(!fits(&two));
        let file = Selection { files: patterns(&["/var/log/**/*.log"]), ..one.clone() };
        assert!(fits(&file));
        let labelled =
            |value| Selection { labels: vec![("app".into(), patterns(&[value])[0].clone())], ..one.clone() };
        assert!(fits(&labelled("c*")) && !fits(&labelled("till")));
        assert!(!labelled("c*").fits(Subject { facts: &pod, labels: &[] }));
    }
}
