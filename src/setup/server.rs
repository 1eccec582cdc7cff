//! Which product in which version answers, and what it can do.

use serde_json::Value;

/// A product and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Which one.
    pub product: Product,
    /// Its version, as it is to be reckoned with.
    pub version: (u32, u32),
    /// Its version as it says it.
    pub number: String,
    /// The name of its cluster.
    pub cluster: String,
}

/// The products that speak this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// With the features that Elastic's licence covers.
    Elasticsearch,
    /// Up to 7.10, without those.
    ElasticsearchOss,
    /// Without nodes, shards and ILM.
    ElasticsearchServerless,
    /// OpenSearch, also as a service.
    OpenSearch,
}

/// How indices grow old there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Policies of Elasticsearch.
    Ilm,
    /// Policies of OpenSearch.
    Ism,
    /// Said in the index template.
    InTemplate,
    /// Not by themselves.
    None,
}

/// The types of fields that not every server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// For messages.
    pub text: &'static str,
    /// For an object whose members are no fields of the index; `None` where there is no such type.
    pub flat: Option<&'static str>,
    /// For what is the same in all documents of an index.
    pub constant: &'static str,
}

impl Server {
    /// Reads the answer to `GET /`; the error says what is there instead.
    pub fn read(answer: &Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, tagline) = (&answer["version"], text(&answer["tagline"]));
        let number = text(&version["number"]);
        let flavor = text(&version["build_flavor"]);
        let is_open_search = version["distribution"] == "opensearch" || tagline.contains("OpenSearch");
        let product = match (is_open_search, tagline.as_str(), flavor.as_str()) {
            (true, ..) => Product::OpenSearch,
            (_, "You Know, for Search", "serverless") => Product::ElasticsearchServerless,
            (_, "You Know, for Search", "oss") => Product::ElasticsearchOss,
            (_, "You Know, for Search", _) => Product::Elasticsearch,
            _ => return Err("what answers is neither Elasticsearch nor OpenSearch".into()),
        };
        let mut parsed = parse(&number).ok_or_else(|| format!("its version '{number}' is no version"))?;
        // OpenSearch can be told to call itself 7.10.2, for the sake of old clients; its index format tells the truth.
        if product == Product::OpenSearch && parsed.0 >= 7 {
            let lucene = parse(&text(&version["lucene_version"])).unwrap_or_default();
            parsed = (lucene.0.saturating_sub(7).max(1), 0);
        }
        if product != Product::OpenSearch && parsed < (7, 10) {
            return Err(format!("Elasticsearch {number} is too old; 7.10 and later ones are set up"));
        }
        Ok(Self { product, version: parsed, number, cluster: text(&answer["cluster_name"]) })
    }

    /// The product's name.
    pub fn name(&self) -> &'static str {
        match self.product {
            Product::OpenSearch => "OpenSearch",
            Product::Elasticsearch => "Elasticsearch",
            Product::ElasticsearchOss => "Elasticsearch OSS",
            Product::ElasticsearchServerless => "Elasticsearch Serverless",
        }
    }

    /// How indices grow old there.
    pub fn lifecycle(&self) -> Lifecycle {
        match self.product {
            Product::Elasticsearch => Lifecycle::Ilm,
            Product::OpenSearch => Lifecycle::Ism,
            Product::ElasticsearchServerless => Lifecycle::InTemplate,
            Product::ElasticsearchOss => Lifecycle::None,
        }
    }

    /// Whether it is Elastic's product in this version or a later one.
    pub fn is_elastic_from(&self, version: (u32, u32)) -> bool {
        match self.product {
            Product::Elasticsearch => self.version >= version,
            Product::ElasticsearchServerless => true,
            Product::ElasticsearchOss | Product::OpenSearch => false,
        }
    }

    /// The types of fields that it should have.
    pub fn types(&self) -> Types {
        let open_search_from = |version| self.product == Product::OpenSearch && self.version >= version;
        let has_match_only = self.is_elastic_from((7, 14)) || open_search_from((2, 12));
        Types {
            text: if has_match_only { "match_only_text" } else { "text" },
            flat: match self.product {
                Product::OpenSearch => open_search_from((2, 7)).then_some("flat_object"),
                Product::ElasticsearchOss => None,
                Product::Elasticsearch | Product::ElasticsearchServerless => Some("flattened"),
            },
            // OpenSearch wants to know the value beforehand.
            constant: if self.is_elastic_from((7, 10)) { "constant_keyword" } else { "keyword" },
        }
    }
}

impl Types {
    /// The same without the one that a server's refusal names, as plugins may be missing; `None` when it names none of these.
    pub fn without(self, refusal: &str) -> Option<Self> {
        let is_named = |name: &str| {
            refusal.contains(&format!("mapper type [{name}]"))
                || refusal.contains(&format!("No handler for type [{name}]"))
        };
        if self.text != "text" && is_named(self.text) {
            Some(Self { text: "text", ..self })
        } else if self.flat.is_some_and(is_named) {
            Some(Self { flat: None, ..self })
        } else if self.constant != "keyword" && is_named(self.constant) {
            Some(Self { constant: "keyword", ..self })
        } else {
            None
        }
    }
}

/// `7.10.2`, `9.0.0-SNAPSHOT`.
fn parse(number: &str) -> Option<(u32, u32)> {
    let mut parts = number.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ELASTIC: &str = "You Know, for Search";
    const OPEN: &str = "The OpenSearch Project: https://opensearch.org/";

    fn answer(tagline: &str, version: &Value) -> Value {
        json!({"name": "n", "cluster_name": "c", "cluster_uuid": "u", "version": version, "tagline": tagline})
    }

    /// What servers answered, shortened to what matters; types by their first letters: match-only, flattened, constant.
    #[test]
    fn answers_of_every_product_and_version() {
        use Lifecycle::{Ilm, InTemplate, Ism, None};
        for (tagline, version, name, expected, lifecycle, types) in [
            (
                ELASTIC,
                json!({"number": "7.10.2", "build_flavor": "default", "lucene_version": "8.7.0"}),
                "Elasticsearch",
                (7, 10),
                Ilm,
                ("text", Some("flattened"), "constant_keyword"),
            ),
            (
                ELASTIC,
                json!({"number": "7.10.2", "build_flavor": "oss", "lucene_version": "8.7.0"}),
                "Elasticsearch OSS",
                (7, 10),
                None,
                ("text", Option::None, "keyword"),
            ),
            (
                ELASTIC,
                json!({"number": "7.17.29", "build_flavor": "default", "lucene_version": "8.11.3"}),
                "Elasticsearch",
                (7, 17),
                Ilm,
                ("match_only_text", Some("flattened"), "constant_keyword"),
            ),
            (
                ELASTIC,
                json!({"number": "8.19.4", "build_flavor": "default", "lucene_version": "9.12.2"}),
                "Elasticsearch",
                (8, 19),
                Ilm,
                ("match_only_text", Some("flattened"), "constant_keyword"),
            ),
            (
                ELASTIC,
                json!({"number": "9.5.3", "build_flavor": "default"}),
                "Elasticsearch",
                (9, 5),
                Ilm,
                ("match_only_text", Some("flattened"), "constant_keyword"),
            ),
            (
                ELASTIC,
                json!({"number": "8.11.0", "build_flavor": "serverless"}),
                "Elasticsearch Serverless",
                (8, 11),
                InTemplate,
                ("match_only_text", Some("flattened"), "constant_keyword"),
            ),
            (
                OPEN,
                json!({"distribution": "opensearch", "number": "1.3.20", "lucene_version": "8.10.1"}),
                "OpenSearch",
                (1, 3),
                Ism,
                ("text", Option::None, "keyword"),
            ),
            (
                OPEN,
                json!({"distribution": "opensearch", "number": "2.6.0", "lucene_version": "9.5.0"}),
                "OpenSearch",
                (2, 6),
                Ism,
                ("text", Option::None, "keyword"),
            ),
            (
                OPEN,
                json!({"distribution": "opensearch", "number": "2.7.0", "lucene_version": "9.5.0"}),
                "OpenSearch",
                (2, 7),
                Ism,
                ("text", Some("flat_object"), "keyword"),
            ),
            (
                OPEN,
                json!({"distribution": "opensearch", "number": "2.19.1", "lucene_version": "9.12.1"}),
                "OpenSearch",
                (2, 19),
                Ism,
                ("match_only_text", Some("flat_object"), "keyword"),
            ),
            (
                OPEN,
                json!({"distribution": "opensearch", "number": "3.9.0", "lucene_version": "10.5.1"}),
                "OpenSearch",
                (3, 9),
                Ism,
                ("match_only_text", Some("flat_object"), "keyword"),
            ),
            // With compatibility.override_main_response_version.
            (
                OPEN,
                json!({"number": "7.10.2", "build_type": "tar", "lucene_version": "8.10.1"}),
                "OpenSearch",
                (1, 0),
                Ism,
                ("text", Option::None, "keyword"),
            ),
            (
                OPEN,
                json!({"number": "7.10.2", "build_type": "tar", "lucene_version": "9.7.0"}),
                "OpenSearch",
                (2, 0),
                Ism,
                ("text", Option::None, "keyword"),
            ),
        ] {
            let server = Server::read(&answer(tagline, &version)).expect("a server");
            assert_eq!((server.name(), server.version, server.lifecycle()), (name, expected, lifecycle));
            let Types { text, flat, constant } = server.types();
            assert_eq!((text, flat, constant), types, "{server:?}");
        }
    }

    #[test]
    fn what_is_no_server_of_that_kind_is_said() {
        for (answer, said) in [
            (json!({}), "neither Elasticsearch nor OpenSearch"),
            (json!({"tagline": "grafana"}), "neither Elasticsearch nor OpenSearch"),
            (answer(ELASTIC, &json!({"number": "7.9.3", "build_flavor": "default"})), "7.9.3 is too old"),
            (answer(ELASTIC, &json!({"number": "x"})), "'x' is no version"),
            (answer(OPEN, &json!({"distribution": "opensearch"})), "'' is no version"),
        ] {
            let error = Server::read(&answer).expect_err("none");
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_type_whose_plugin_is_missing_is_done_without() {
        let types = Types { text: "match_only_text", flat: Some("flattened"), constant: "constant_keyword" };
        let refusals = [
            "The mapper type [match_only_text] declared on field [message] does not exist.",
            "Failed to parse mapping [_doc]: No handler for type [flattened] declared on field [labels]",
            "The mapper type [constant_keyword] declared on field [type] does not exist.",
        ];
        let left = refusals.iter().try_fold(types, |types, refusal| types.without(refusal));
        assert_eq!(left, Some(Types { text: "text", flat: None, constant: "keyword" }));
        assert_eq!(left.and_then(|left| left.without(refusals[0])), None);
        assert_eq!(types.without("no permission"), None);
    }
}
