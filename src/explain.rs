//! `nodewarden check --line TEXT --file PATH`: what happens to a line, step by step. The line goes the way of every line, through
//! an [`Output`] and its batch; nothing here knows by itself what becomes of it.

use std::{
    io::{self, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use prometheus::{Registry, core::Collector, proto::MetricFamily};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cli::ExplainArgs,
    config::Config,
    delivery,
    kubernetes::pod::{Pod, RawPod, Wanted},
    logs::{
        batch::{Batch, BatchLimits, FileKey, records},
        discover::Found,
        file::{Identity, LogFile},
        join::QUIET,
        output::{Output, Read},
        process::{
            Processors, multiline_of,
            rules::{Action, Rule},
        },
        record::{FileFacts, FileId, Origin, PodFacts, Span},
        shape::{Encoding, Shape},
        tail::Tail,
    },
    metrics::Own,
};

const KEY: FileKey = FileKey(0);

/// Says what happens to the line. Of its text only what a sink would get is shown.
pub fn explain(config: &Config, args: &ExplainArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = Path::new(&args.file);
    let sources = delivery::sources(config)?;
    let mut reasons = Vec::new();
    let mut taken = None;
    for (number, (source, encoding)) in sources.iter().enumerate() {
        match source.takes(path) {
            Ok(origin) => {
                taken = Some((number, origin, encoding));
                break;
            }
            Err(reason) => reasons.push(format!("logs.sources[{number}]: {reason}")),
        }
    }
    let Some((number, origin, encoding)) = taken else {
        writeln!(out, "source:   none reads this file")?;
        for reason in reasons {
            writeln!(out, "          {reason}")?;
        }
        return Ok(());
    };
    writeln!(
        out,
        "source:   logs.sources[{number}], {}",
        delivery::source_text(&config.logs.sources[number].kind)
    )?;
    say_origin(&origin, out)?;
    let own = Own::new(Registry::new())?;
    let processors = Processors::new(config.logs.process.clone(), &own.logs);
    let pod = pod(config, args, &origin)?;
    let mut file = file(path, &args.line, origin, pod, encoding, &processors, &own)?;
    let rule = file.identity.as_ref().and_then(|identity| multiline_of(&identity.facts));
    let configured = || delivery::multiline(config).swap_remove(number);
    file.joiner.set_rule(rule.unwrap_or_else(configured));
    let (batches, mut queue) = mpsc::channel(2);
    let limits = BatchLimits { max_bytes: 1 << 20, max_wait: Duration::from_secs(1), buffers: 2 };
    let mut output = Output::new(limits, batches, config.logs.max_line as usize, own.logs.clone());
    let span = Span { start: 0, end: args.line.len() as u64 + 1 };
    let now = Instant::now();
    let read = Read { text: args.line.as_bytes(), rest: b"", span };
    output.take(KEY, &mut file, read, now);
    let joined = if file.joiner.has_whole() {
        format!(
            "it may begin an event of several lines, and waits {QUIET:?} for the next; below, as if none came"
        )
    } else if file.joiner.pending_from().is_some() {
        "it is a part, and waits for the rest of its line; below, as if none came".to_owned()
    } else {
        "it is a line of its own".to_owned()
    };
    file.read_to = span.end;
    output.take_held(KEY, &mut file, now);
    writeln!(out, "format:   {}", file.format().as_str())?;
    writeln!(out, "joined:   {joined}")?;
    file.count_read();
    output.close(now);
    for note in processors.notes(&file.origin) {
        writeln!(out, "note:     {note}")?;
    }
    say_rules(&config.logs.process.rules, &own, out)?;
    say_totals(&own, out)?;
    match queue.try_recv() {
        Ok(batch) => say_document(&batch, encoding, &config.state_dir, out)?,
        Err(_) => writeln!(out, "document: none")?,
    }
    Ok(())
}

fn say_origin(origin: &Origin, out: &mut dyn Write) -> io::Result<()> {
    match origin.container() {
        Some(container) => writeln!(
            out,
            "origin:   namespace {}, pod {}, container {}, after {} restarts",
            container.namespace, container.pod, container.name, container.restart
        ),
        None => writeln!(out, "origin:   a file of this host"),
    }
}

/// The pod as the cluster would tell it.
fn pod(config: &Config, args: &ExplainArgs, origin: &Origin) -> anyhow::Result<PodFacts> {
    let Some(container) =
        origin.container().filter(|_| !args.labels.is_empty() || !args.annotations.is_empty())
    else {
        return Ok(PodFacts::NotAsked);
    };
    let pairs = |given: &[String]| -> anyhow::Result<Value> {
        let split = |pair: &String| {
            let (key, value) = pair.split_once('=').with_context(|| format!("'{pair}' is no key=value"))?;
            Ok((key.to_owned(), Value::from(value)))
        };
        given.iter().map(split).collect::<anyhow::Result<serde_json::Map<_, _>>>().map(Value::Object)
    };
    let raw: RawPod = serde_json::from_value(json!({"metadata": {
        "uid": container.uid, "namespace": container.namespace, "name": container.pod,
        "labels": pairs(&args.labels)?, "annotations": pairs(&args.annotations)?,
    }}))?;
    let kubernetes = &config.kubernetes;
    let wanted = Wanted { annotations: kubernetes.annotations.clone(), hints: kubernetes.hints };
    let pod = Pod::read(raw, &wanted).context("the file's path says no uid of its pod")?;
    Ok(PodFacts::Known(Arc::new(pod)))
}

/// A file that holds the line, as the reader knows one.
fn file(
    path: &Path,
    line: &str,
    origin: Origin,
    pod: PodFacts,
    encoding: &Encoding,
    processors: &Arc<Processors>,
    own: &Own,
) -> anyhow::Result<LogFile> {
    let memory = memfd_create("line", MemfdFlags::CLOEXEC).context("could not make a file in memory")?;
    let (tail, inode) = Tail::open(Path::new(&format!("/proc/self/fd/{}", memory.as_raw_fd())))?;
    let id = FileId::new(&origin, Some(inode), 0, line.as_bytes());
    let facts = FileFacts { pod, ..FileFacts::new(id, path, origin.clone()) };
    let found = Found { path: path.into(), active_path: path.into(), origin, source: 0 };
    let mut file = LogFile::new(found, tail, inode, Instant::now());
    file.identity = Some(Identity {
        base: id,
        first: (0, 0),
        generation: 0,
        shape: Some(Shape::new(encoding, &facts)),
        account: own.logs.ledger.account(facts.origin.owner()),
        process: processors.of_file(&facts, encoding),
        facts: Arc::new(facts),
    });
    Ok(file)
}

/// What was counted under a name.
fn counted(families: &[MetricFamily], name: &str) -> bool {
    families.iter().flat_map(MetricFamily::get_metric).any(|metric| {
        metric.get_counter().get_value() > 0.0 && metric.get_label().iter().any(|label| label.value() == name)
    })
}

fn say_rules(rules: &[Rule], own: &Own, out: &mut dyn Write) -> io::Result<()> {
    let hits = own.logs.rule_lines.collect();
    if counted(&hits, "annotation") {
        writeln!(out, "rule:     an annotation of the pod: left out")?;
    }
    for rule in rules.iter().filter(|rule| counted(&hits, &rule.name)) {
        let does = match rule.action {
            _ if rule.dry_run => "only counted".to_owned(),
            Action::Keep => "kept".to_owned(),
            Action::Drop => "left out".to_owned(),
            Action::Sample(one_of) => format!("one of {one_of} such lines is kept"),
            Action::Collapse(within) => format!("repeats within {within:?} are counted"),
        };
        writeln!(out, "rule:     {}: {does}", rule.name)?;
    }
    let detectors = own.logs.redacted_lines.collect();
    let hits = detectors.iter().flat_map(MetricFamily::get_metric);
    for hit in hits.filter(|metric| metric.get_counter().get_value() > 0.0) {
        let names: Vec<&str> = hit.get_label().iter().map(|label| label.value()).collect();
        writeln!(out, "redacted: {}", names.join(", "))?;
    }
    Ok(())
}

fn say_totals(own: &Own, out: &mut dyn Write) -> io::Result<()> {
    let figures = own.logs.ledger.total();
    if figures.dropped.total().lines > 0 {
        writeln!(out, "result:   the line is left out, and counted as dropped")?;
    }
    if figures.lost.total().bytes > 0 {
        writeln!(out, "cut:      {} bytes beyond logs.max_line", figures.lost.total().bytes)?;
    }
    Ok(())
}

fn say_document(
    batch: &Batch,
    encoding: &Encoding,
    state_dir: &Path,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if matches!(encoding, Encoding::Records) {
        writeln!(out, "sink:     the local store in {}", state_dir.join("store").display())?;
        for (_, record) in records(batch) {
            writeln!(out, "text:     {}", String::from_utf8_lossy(record.text))?;
        }
        return Ok(());
    }
    for item in 0..batch.len() {
        let mut lines = batch.body[batch.range(item)].split(|byte| *byte == b'\n');
        let mut next =
            || -> anyhow::Result<Value> { Ok(serde_json::from_slice(lines.next().unwrap_or_default())?) };
        let (action, document) = (next()?, next()?);
        let create = &action["create"];
        writeln!(out, "index:    {}", create["_index"].as_str().unwrap_or_default())?;
        match create["_id"].as_str() {
            Some(id) => {
                let (file, offset) = id.split_at_checked(16).unwrap_or((id, ""));
                writeln!(
                    out,
                    "_id:      {file} (the file, by its first line) + {offset} (where in it the line begins)"
                )?;
            }
            None => writeln!(out, "_id:      made by the server")?,
        }
        writeln!(out, "document: {}", serde_json::to_string_pretty(&document)?)?;
    }
    Ok(())
}
