//! `nodewarden setup`: what Elasticsearch or OpenSearch should know before lines come. The agent itself needs none of it.
//!
//! ```text
//! server    which product and version answers      targets   what the configuration ships to
//! mappings  types of fields                        lifecycle how indices grow old
//! stored    what is there already, and whose it is
//! ```
//! One after the other: policy, template, data streams, as each names the one before. What somebody else made or changed stays.

mod lifecycle;
mod mappings;
mod server;
mod stored;
mod targets;
#[cfg(test)]
mod tests;

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use self::{
    lifecycle::Plan,
    server::{Lifecycle, Product, Server},
    stored::{Finding, Kind, Stored},
    targets::{Target, targets},
};
use crate::{
    config::{Config, ElasticConfig, units},
    logs::{
        elastic::client::{Body, Call, Client},
        shape::Schema,
    },
};

/// Above those of the products and of Fleet (up to 500), which have the same names in view.
const PRIORITY: u32 = 501;
/// How many fields an index may have: those of the agents of many nodes come together there.
const FIELDS: u32 = 2000;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Only print what would be sent.
    pub dry_run: bool,
    /// How many days after its last line an index is deleted; never without.
    pub retention: Option<u64>,
}

impl Options {
    /// Reads what was written on the command line.
    pub fn new(dry_run: bool, retention: Option<&str>) -> anyhow::Result<Self> {
        const DAY: u64 = 24 * 3600;
        let Some(text) = retention else { return Ok(Self { dry_run, retention: None }) };
        let seconds = units::duration(text).map_err(anyhow::Error::msg).context("--retention")?.as_secs();
        if seconds == 0 || !seconds.is_multiple_of(DAY) {
            bail!("--retention: expected whole days such as 30d, not '{text}'");
        }
        Ok(Self { dry_run, retention: Some(seconds / DAY) })
    }
}

/// Sets the configured servers up and says what was done, a line for each thing, on `out`; on `err` what could not be done.
/// Whether all of it could.
pub fn run(
    config: &Config,
    options: &Options,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<bool> {
    let Some(elastic) = &config.elasticsearch else {
        bail!("there is nothing to set up: elasticsearch.hosts is not set");
    };
    let targets = targets(&config.logs.sources, &elastic.index);
    if targets.is_empty() {
        bail!("there is nothing to set up: logs.sources is empty");
    }
    let runtime =
        Builder::new_current_thread().enable_all().build().context("could not start the runtime")?;
    runtime.block_on(async {
        let client = Client::new(elastic.client());
        let mut setup = Setup { client, elastic, options, out, err, failed: false };
        setup.all(&targets).await?;
        Ok(!setup.failed)
    })
}

struct Setup<'a> {
    client: Arc<Client>,
    elastic: &'a ElasticConfig,
    options: &'a Options,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    failed: bool,
}

/// An object that is to be there.
struct Object<'a> {
    what: &'static str,
    name: &'a str,
    /// Where it is asked for and put.
    path: String,
    kind: Kind,
    contents: Value,
}

/// How that went.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is there, in this version or another one.
    There,
    /// The server does not know such objects.
    Unknown,
    /// It was refused for this reason.
    Refused(String),
}

/// An answer that came.
struct Answer {
    status: u16,
    body: Value,
}

impl Setup<'_> {
    async fn all(&mut self, targets: &[Target]) -> anyhow::Result<()> {
        let server = self.server().await?;
        let name = format!("{} {}, cluster {}", server.name(), server.number, server.cluster);
        self.say(&name)?;
        for target in targets {
            self.target(&server, target).await?;
        }
        Ok(())
    }

    async fn server(&self) -> anyhow::Result<Server> {
        let answer = self.ask(Method::GET, "/", None).await?;
        match answer.status {
            200 => Server::read(&answer.body).map_err(anyhow::Error::msg).context(self.hosts()),
            401 => bail!("{}: HTTP 401: {}", self.hosts(), self.client.remedy()),
            403 => bail!("{}: {}; it takes the cluster privilege monitor", self.hosts(), answer.reason()),
            _ => bail!("{}: {}", self.hosts(), answer.reason()),
        }
    }

    async fn target(&mut self, server: &Server, target: &Target) -> anyhow::Result<()> {
        let mut template = template(server, self.elastic.schema, target);
        match lifecycle::plan(server, target, self.options.retention) {
            Plan::InTemplate(lifecycle) => template["template"]["lifecycle"] = lifecycle,
            Plan::Policy(policy) => {
                let is_there = self.policy(server, target, policy).await?;
                if is_there && server.lifecycle() == Lifecycle::Ilm {
                    template["template"]["settings"]["index.lifecycle.name"] = target.name.as_str().into();
                }
            }
            Plan::Nothing(why) => self.no_policy(&target.name, why)?,
        }
        if self.template(server, target, template).await? {
            for stream in &target.streams {
                self.stream(server, stream).await?;
            }
        }
        Ok(())
    }

    /// Whether there is a policy that a template can name.
    async fn policy(&mut self, server: &Server, target: &Target, contents: Value) -> anyhow::Result<bool> {
        let name = &target.name;
        let (kind, path, privilege) = match server.lifecycle() {
            Lifecycle::Ism => (
                Kind::Ism,
                format!("/_plugins/_ism/policies/{name}"),
                "the permission cluster:admin/opendistro/ism/policy/write",
            ),
            _ => (
                Kind::Ilm { has_meta: server.is_elastic_from((7, 16)) },
                format!("/_ilm/policy/{name}"),
                "the cluster privilege manage_ilm",
            ),
        };
        let object = Object { what: "lifecycle policy", name, path, kind, contents };
        match self.install(&object).await? {
            Outcome::There => Ok(true),
            Outcome::Unknown => {
                self.no_policy(name, "this server has no lifecycle policies")?;
                Ok(false)
            }
            Outcome::Refused(reason) => {
                self.fail(object.what, name, &reason, privilege)?;
                Ok(false)
            }
        }
    }

    /// That there is none is a failure only when somebody wants lines to be deleted.
    fn no_policy(&mut self, name: &str, why: &str) -> anyhow::Result<()> {
        match self.options.retention {
            None => self.say(&format!("lifecycle policy {name}: none, {why}")),
            Some(_) => self.fail("lifecycle policy", name, &format!("--retention has no effect: {why}"), ""),
        }
    }

    /// Puts the template, without the types of fields that the server turns out not to have. Whether it is there.
    async fn template(
        &mut self,
        server: &Server,
        target: &Target,
        mut contents: Value,
    ) -> anyhow::Result<bool> {
        let name = &target.name;
        let mut types = server.types();
        loop {
            contents["template"]["mappings"] = mappings::mappings(self.elastic.schema, types);
            let object = Object {
                what: "index template",
                name,
                path: format!("/_index_template/{name}"),
                kind: Kind::Template,
                contents: contents.clone(),
            };
            let reason = match self.install(&object).await? {
                Outcome::There => return Ok(true),
                Outcome::Unknown => "this server knows no index templates".to_owned(),
                Outcome::Refused(reason) => reason,
            };
            let Some(fewer) = types.without(&reason) else {
                let privilege = match server.product {
                    Product::OpenSearch => "the permission indices:admin/index_template/put",
                    _ => "the cluster privilege manage_index_templates",
                };
                self.fail(object.what, name, &reason, privilege)?;
                return Ok(false);
            };
            types = fewer;
        }
    }

    /// Puts one object unless it is there, or is somebody else's.
    async fn install(&mut self, object: &Object<'_>) -> anyhow::Result<Outcome> {
        let Object { what, name, path, kind, contents } = object;
        let answer = self.ask(Method::GET, path, None).await?;
        let stored = match answer.status {
            200 => kind.read(&answer.body, name),
            _ if answer.is_unknown_here() => return Ok(Outcome::Unknown),
            404 => None,
            _ => return Ok(Outcome::Refused(answer.reason())),
        };
        let finding = stored.as_ref().map_or(Finding::Missing, |stored| stored.judge(*kind, contents));
        let done = match finding {
            Finding::Missing => "created".to_owned(),
            Finding::Outdated(version) => format!("updated, it was written by version {version}"),
            Finding::UpToDate => {
                self.say(&format!("{what} {name}: is up to date"))?;
                return Ok(Outcome::There);
            }
            Finding::Foreign => {
                self.say(&format!("{what} {name}: left alone, it is not nodewarden's"))?;
                return Ok(Outcome::There);
            }
            Finding::Changed => {
                let remedy = "delete it to have it made anew";
                self.say(&format!(
                    "{what} {name}: left alone, it was changed since it was set up; {remedy}"
                ))?;
                return Ok(Outcome::There);
            }
        };
        let path = format!("{path}{}", only_if(*kind, stored.as_ref()));
        let body = kind.marked(contents);
        if self.options.dry_run {
            self.print("PUT", &path, Some(&body))?;
            return Ok(Outcome::There);
        }
        let answer = self.ask(Method::PUT, &path, Some(&body)).await?;
        match answer.status {
            200 | 201 => {
                self.say(&format!("{what} {name}: {done}"))?;
                Ok(Outcome::There)
            }
            _ => Ok(Outcome::Refused(answer.reason())),
        }
    }

    /// Makes an empty data stream, so that agents need no right to do so.
    async fn stream(&mut self, server: &Server, name: &str) -> anyhow::Result<()> {
        const WHAT: &str = "data stream";
        let path = format!("/_data_stream/{name}");
        let answer = self.ask(Method::GET, &path, None).await?;
        let refused = match answer.status {
            200 => return self.say(&format!("{WHAT} {name}: is there, its next index follows the template")),
            404 if self.options.dry_run => return self.print("PUT", &path, None),
            404 => self.ask(Method::PUT, &path, None).await?,
            _ if answer.is_unknown_here() => {
                return self.say(&format!("{WHAT} {name}: will be made with its first line"));
            }
            _ => answer,
        };
        match refused.status {
            200 => self.say(&format!("{WHAT} {name}: created")),
            _ => {
                let privilege = match server.product {
                    Product::OpenSearch => {
                        format!("the permission indices:admin/data_stream/create for {name}")
                    }
                    _ => format!("the privileges create_index and view_index_metadata for {name}"),
                };
                self.fail(WHAT, name, &refused.reason(), &privilege)
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let body = body.map(|body| Body {
            bytes: body.to_string().into(),
            kind: "application/json",
            is_gzip: false,
        });
        let call = Call { method, path: path.to_owned(), body, patience: PATIENCE };
        let response = self.client.ask(&call).await.map_err(|reason| anyhow::Error::msg(reason.text))?;
        let body = match serde_json::from_slice(&response.body) {
            Ok(body) => body,
            // What stands between may answer in its own words.
            Err(_) => {
                Value::from(String::from_utf8_lossy(&response.body).chars().take(200).collect::<String>())
            }
        };
        Ok(Answer { status: response.status.as_u16(), body })
    }

    fn hosts(&self) -> String {
        let hosts: Vec<String> = self.elastic.hosts.iter().map(ToString::to_string).collect();
        hosts.join(", ")
    }

    /// What was done; where requests are printed, beside them.
    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let comment = if self.options.dry_run { "# " } else { "" };
        Ok(writeln!(self.out, "{comment}{text}")?)
    }

    fn fail(&mut self, what: &str, name: &str, reason: &str, privilege: &str) -> anyhow::Result<()> {
        self.failed = true;
        let remedy = if reason.starts_with("HTTP 403") && !privilege.is_empty() {
            format!("; it takes {privilege}")
        } else {
            String::new()
        };
        Ok(writeln!(self.err, "{what} {name}: {reason}{remedy}")?)
    }

    fn print(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<()> {
        writeln!(self.out, "{method} {path}")?;
        if let Some(body) = body {
            writeln!(self.out, "{}", serde_json::to_string_pretty(body)?)?;
        }
        Ok(())
    }
}

impl Answer {
    /// Whether the server knows nothing at this path.
    fn is_unknown_here(&self) -> bool {
        let text = self.body["error"].as_str().unwrap_or_default();
        matches!(self.status, 405 | 410) || text.starts_with("no handler found")
    }

    /// Why the answer is no good one: the last of the causes is the one that people understand.
    fn reason(&self) -> String {
        let mut error = &self.body["error"];
        while error["caused_by"].is_object() {
            error = &error["caused_by"];
        }
        let texts = [&error["reason"], error, &self.body];
        let text = texts.into_iter().find_map(Value::as_str).unwrap_or_default();
        format!("HTTP {} {text}", self.status).trim_end().to_owned()
    }
}

/// What makes a PUT fail when somebody else was faster.
fn only_if(kind: Kind, stored: Option<&Stored>) -> String {
    match (kind, stored) {
        (Kind::Template, None) => "?create=true".into(),
        (Kind::Ism, Some(Stored { sequence: Some((number, term)), .. })) => {
            format!("?if_seq_no={number}&if_primary_term={term}")
        }
        _ => String::new(),
    }
}

/// The index template of a target, but for mappings and lifecycle.
fn template(server: &Server, schema: Schema, target: &Target) -> Value {
    let mut settings = json!({"index.mapping.total_fields.limit": FIELDS});
    // Where it can, an index keeps a document with one field too many, and only does not search that field.
    if server.is_elastic_from((8, 14)) {
        settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = true.into();
    }
    // What people search who name no field. In the other schema they are used to searching all.
    if schema == Schema::Ecs {
        settings["index.query.default_field"] = json!(["message"]);
    }
    let mut template = json!({
        "index_patterns": target.patterns,
        "priority": PRIORITY,
        "template": {"settings": settings},
    });
    if target.is_stream {
        template["data_stream"] = json!({});
    }
    template
}
