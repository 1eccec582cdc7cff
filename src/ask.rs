//! The sub-commands that ask a running agent: `logs`, `files`, `dead-letters`, `healthcheck`.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    agent::CONTROL_SOCKET,
    cli::{LettersArgs, LogsArgs},
    config::{WebConfig, units},
    web::client::{Answer, address, get, post},
};

/// Lines that `nodewarden logs` shows when nobody narrows the time down.
const LINES: &str = "1000";

/// A line as the admin API gives it.
#[derive(Deserialize)]
struct Line {
    time: String,
    stream: Option<String>,
    labels: Labels,
    text: String,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    pod: String,
    #[serde(default)]
    container: String,
    #[serde(default)]
    file: String,
}

impl Line {
    /// Milliseconds are enough for eyes.
    fn short_time(&self) -> &str {
        self.time.get(..23).unwrap_or(&self.time)
    }
}

impl Labels {
    fn origin(&self) -> String {
        match self.namespace.is_empty() {
            true => self.file.clone(),
            false => format!("{}/{}/{}", self.namespace, self.pod, self.container),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    lines: Vec<serde_json::Value>,
}

/// Shows the newest lines that match, oldest first, then what comes, if that is wanted.
pub fn logs(state_dir: &Path, args: &LogsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let socket = state_dir.join(CONTROL_SOCKET);
    let since = args
        .since
        .as_deref()
        .map(units::duration)
        .transpose()
        .map_err(anyhow::Error::msg)
        .context("--since")?;
    let since = since.map(|since| since.as_secs_f64().to_string());
    let mut parameters = Vec::new();
    for (name, value) in [
        ("query", &args.query),
        ("namespace", &args.namespace),
        ("pod", &args.pod),
        ("container", &args.container),
        ("since", &since),
    ] {
        parameters.extend(value.as_deref().map(|value| (name, value)));
    }
    let style = Style { json: args.json, colour: io::stdout().is_terminal() };
    // The tail is asked first, so that no line falls between the two; lines of both are shown once.
    let tail = args.follow.then(|| get(&socket, &address("/api/v1/logs/tail", &parameters))).transpose()?;
    parameters.push(("limit", LINES));
    let page: Page = serde_json::from_reader(get(&socket, &address("/api/v1/logs", &parameters))?)
        .context("the agent's answer could not be understood")?;
    for line in page.lines.iter().rev() {
        show(line, &style, out)?;
    }
    out.flush()?;
    tail.map_or(Ok(()), |tail| follow(tail, &page.lines, &style, out))
}

/// Shows what the tail brings until the agent or the user ends it.
fn follow(
    tail: Answer,
    shown: &[serde_json::Value],
    style: &Style,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for event in BufReader::new(tail).lines() {
        let event = event?;
        let Some(data) = event.strip_prefix("data:") else { continue };
        let line: serde_json::Value = serde_json::from_str(data.trim())?;
        if !shown.contains(&line) {
            show(&line, style, out)?;
            out.flush()?;
        }
    }
    Ok(())
}

struct Style {
    json: bool,
    colour: bool,
}

fn show(value: &serde_json::Value, style: &Style, out: &mut dyn Write) -> anyhow::Result<()> {
    if style.json {
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let line = Line::deserialize(value).context("the agent's answer could not be understood")?;
    let (time, origin) = (line.short_time(), line.labels.origin());
    let is_error = line.stream.as_deref() == Some("stderr");
    if style.colour {
        let text_colour = if is_error { "31" } else { "0" };
        writeln!(
            out,
            "\x1b[2m{time}\x1b[0m \x1b[36m{origin}\x1b[0m \x1b[{text_colour}m{}\x1b[0m",
            line.text
        )?;
    } else {
        writeln!(out, "{time} {origin} {}", line.text)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Files {
    files: Vec<FileRow>,
}

#[derive(Deserialize)]
struct FileRow {
    path: String,
    format: String,
    offset: u64,
    size: u64,
    lag_bytes: u64,
    lag_seconds: Option<f64>,
    state: String,
    last_error: Option<String>,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    sink: SinkRow,
}

#[derive(Deserialize)]
struct SinkRow {
    kind: String,
    target: String,
    state: String,
    reason: Option<String>,
}

/// Shows the table of tailed files and where their lines go.
pub fn files(state_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let socket = state_dir.join(CONTROL_SOCKET);
    let status: Status = serde_json::from_reader(get(&socket, "/api/v1/status")?)?;
    let files: Files = serde_json::from_reader(get(&socket, "/api/v1/files")?)?;
    let SinkRow { kind, target, state, reason } = status.sink;
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    writeln!(out, "sink: {kind} {target} ({state}{reason})")?;
    writeln!(
        out,
        "{:<8} {:<7} {:>12} {:>12} {:>10} {:>6}  PATH",
        "STATE", "FORMAT", "OFFSET", "SIZE", "LAG", "FOR"
    )?;
    for file in files.files {
        let waited = file.lag_seconds.map_or_else(String::new, |seconds| format!("{seconds:.0}s"));
        let said = file.last_error.into_iter().chain(file.notes);
        let said: String = said.map(|text| format!("  ({text})")).collect();
        writeln!(
            out,
            "{:<8} {:<7} {:>12} {:>12} {:>10} {:>6}  {}{said}",
            file.state, file.format, file.offset, file.size, file.lag_bytes, waited, file.path
        )?;
    }
    Ok(())
}

/// A dead letter's text.
#[derive(Deserialize)]
struct Letter {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    index: String,
    reason: String,
    document: String,
}

impl Letter {
    fn is_asked_for(&self, args: &LettersArgs) -> bool {
        args.index.as_ref().is_none_or(|index| self.index == *index)
            && args.reason.as_ref().is_none_or(|reason| self.reason.contains(reason.as_str()))
            && (args.id.is_none() || self.id == args.id)
    }
}

/// What became of dead letters that were sent again.
#[derive(Deserialize)]
struct Resent {
    accepted: u64,
    refused: u64,
    waiting: u64,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Dropped {
    dropped: u64,
}

/// Shows refused documents, or has them sent again or dropped, and says how many.
pub fn dead_letters(state_dir: &Path, args: &LettersArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let socket = state_dir.join(CONTROL_SOCKET);
    if args.action == "list" {
        return list_letters(&socket, args, out);
    }
    let named = [("index", &args.index), ("reason", &args.reason), ("id", &args.id)];
    let mut which: Vec<(&str, &str)> =
        named.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    match (args.all, which.is_empty()) {
        (true, true) => which.push(("all", "true")),
        (false, false) => {}
        (true, false) => bail!("--all is for every dead letter; leave it out, or --index, --reason and --id"),
        (false, true) => bail!("say which dead letters: --all, or one or more of --index, --reason and --id"),
    }
    let answer = post(&socket, &address(&format!("/api/v1/dead-letters/{}", args.action), &which))?;
    let odd = "the agent's answer could not be understood";
    if args.action == "drop" {
        let Dropped { dropped } = serde_json::from_reader(answer).context(odd)?;
        writeln!(out, "{dropped} dropped")?;
        return Ok(());
    }
    let Resent { accepted, refused, waiting, reason } = serde_json::from_reader(answer).context(odd)?;
    writeln!(out, "{accepted} accepted, {refused} refused again, {waiting} not taken for now")?;
    if let Some(reason) = reason {
        writeln!(out, "    {reason}")?;
    }
    Ok(())
}

/// The newest ones, newest first: when and where from, why, for which index under which id, and the document.
fn list_letters(socket: &Path, args: &LettersArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let page: Page =
        serde_json::from_reader(get(socket, &address("/api/v1/dead-letters", &[("limit", LINES)]))?)
            .context("the agent's answer could not be understood")?;
    for value in &page.lines {
        let line = Line::deserialize(value).context("the agent's answer could not be understood")?;
        let letter: Letter =
            serde_json::from_str(&line.text).context("a dead letter could not be understood")?;
        if !letter.is_asked_for(args) {
            continue;
        }
        let (time, origin) = (line.short_time(), line.labels.origin());
        let Letter { id, index, reason, document } = letter;
        let id = id.unwrap_or_default();
        writeln!(out, "{time} {origin} {reason}\n    {index} {id}\n    {document}")?;
    }
    Ok(())
}

/// How long a healthy agent may take to say so.
const HEALTH_PATIENCE: Duration = Duration::from_secs(3);

/// Succeeds when the running agent says on its metrics listener that it is healthy: for exec probes, as the image has no
/// shell. It asks there and not on the control socket, so that it works without a state directory too; only where systemd
/// chose the listener, the control socket has to do.
pub fn healthcheck(web: &WebConfig, state_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    if web.systemd_socket {
        get(&state_dir.join(CONTROL_SOCKET), "/api/v1/status")?;
        writeln!(out, "healthy")?;
        return Ok(());
    }
    let listen = web.listen.first().context("no metrics listener is configured")?;
    let mut address = *listen.resolve()?.first().context("the metrics listener has no address")?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_PATIENCE)
        .with_context(|| format!("no running agent answers at {address}"))?;
    stream.set_read_timeout(Some(HEALTH_PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    // Behind a password (401), TLS (400) or a limit (429) it is as healthy: that it answers at once is the proof.
    let guarded = web.config_file.is_some();
    let code = status.split(' ').nth(1).unwrap_or_default();
    if code != "200" && !(guarded && matches!(code, "400" | "401" | "429")) {
        bail!("the agent at {address} is not healthy: {}", status.trim());
    }
    writeln!(out, "healthy")?;
    Ok(())
}
