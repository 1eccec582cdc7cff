//! The command line: what was written, before it gets a meaning in `config`.

mod flags;

use std::{collections::BTreeMap, ffi::OsString};

use clap::{
    Arg, ArgAction, ArgMatches, Command as Clap,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use flags::elsewhere;

/// What was written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cli {
    /// What to do.
    pub command: Command,
    /// The configuration's flags.
    pub flags: Flags,
}

/// Flag names without dashes to every value given; `--no-x` is `x` with the value `false`.
pub type Flags = BTreeMap<String, Vec<String>>;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the agent.
    Run,
    /// Say what the configuration means, or what is wrong with it.
    Check,
    /// Say what happens to a line.
    Explain(ExplainArgs),
    /// Search the running agent's local store.
    Logs(LogsArgs),
    /// Show the files that the running agent reads.
    Files,
    /// Show the documents that Elasticsearch refused, send them again or drop them.
    DeadLetters(LettersArgs),
    /// Prepare Elasticsearch or OpenSearch for the documents to come.
    Setup(SetupArgs),
    /// Ask the running agent whether it is healthy.
    Healthcheck,
    /// Give the state directory to the user that the agent will run as.
    PrepareState(Owner),
}

/// Whom files shall belong to, in numbers: an image has no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Understands `65534:0`.
    fn parse(written: &str) -> Result<Self, String> {
        let numbers =
            written.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        let (uid, gid) = numbers.ok_or_else(|| format!("needs UID:GID such as 65534:0, not '{written}'"))?;
        Ok(Self { uid, gid })
    }
}

/// What to do with which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LettersArgs {
    /// `list`, `resend` or `drop`.
    pub action: String,
    /// Those that this index or data stream refused.
    pub index: Option<String>,
    /// Those with these words in their reason.
    pub reason: Option<String>,
    /// The one of this document.
    pub id: Option<String>,
    /// Every one.
    pub all: bool,
}

/// What `nodewarden setup` was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetupArgs {
    /// Only print what would be sent.
    pub dry_run: bool,
    /// When indices are deleted, as written: `30d`.
    pub retention: Option<String>,
}

/// What `nodewarden check --line` was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExplainArgs {
    /// The line as it stands in the file.
    pub line: String,
    /// The file that holds it, which need not be there.
    pub file: String,
    /// Annotations of its pod, `key=value` each.
    pub annotations: Vec<String>,
    /// Labels of its pod, likewise.
    pub labels: Vec<String>,
}

/// What `nodewarden logs` was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsArgs {
    /// Words to search.
    pub query: Option<String>,
    /// How far back, as written: `10m`.
    pub since: Option<String>,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this pod.
    pub pod: Option<String>,
    /// Only this container.
    pub container: Option<String>,
    /// Go on with new lines.
    pub follow: bool,
    /// One JSON object per line.
    pub json: bool,
}

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Help or version was asked for: for standard output, exit code 0.
    Answer(String),
    /// The command line can't be understood: one line for standard error, exit code 1.
    Mistake(String),
}

/// Reads a command line; the first argument is the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let mut command = command();
    let matches = match command.try_get_matches_from_mut(args) {
        Ok(matches) => matches,
        Err(error) => return Err(stop(&error, &command)),
    };
    let mut flags = Flags::new();
    flags::collect(&matches, &mut flags);
    let command = match matches.subcommand() {
        None => Command::Run,
        Some((name, given)) => {
            flags::collect(given, &mut flags);
            subcommand(name, given)
        }
    };
    Ok(Cli { command, flags })
}

fn command() -> Clap {
    let root = Clap::new("nodewarden")
        .bin_name("nodewarden")
        .about("One agent for a Kubernetes node: metrics on :9100, logs to Elasticsearch or a local store.")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .max_term_width(110)
        .arg(Arg::new("version").long("version").help("Print the version").action(ArgAction::Version))
        .subcommands(subcommands());
    flags::add(root, false)
}

fn subcommands() -> Vec<Clap> {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
    };
    let logs = Clap::new("logs").about("Search the local store of the running agent").args([
        Arg::new("query").value_name("QUERY").help("Words to search; all lines without it"),
        text("since", "DURATION", "How far back, such as 10m or 24h"),
        text("namespace", "NAME", "Only this namespace"),
        text("pod", "NAME", "Only this pod"),
        text("container", "NAME", "Only this container"),
        switch("follow", "Go on with new lines"),
        switch("json", "One JSON object per line"),
    ]);
    let all = [
        Clap::new("check")
            .about("Print the effective configuration and where each value came from, or every mistake")
            .args([
                text("line", "TEXT", "Say what happens to this line of a log file instead").requires("file"),
                text("file", "PATH", "The file that holds it; need not be there").requires("line"),
                text("annotation", "KEY=VALUE", "An annotation of its pod; repeatable")
                    .action(ArgAction::Append),
                text("label", "KEY=VALUE", "A label of its pod; repeatable").action(ArgAction::Append),
            ]),
        logs,
        Clap::new("files").about("Show the files that the running agent reads"),
        Clap::new("dead-letters").about("Show the documents that Elasticsearch refused, and why").args([
            Arg::new("action")
                .value_name("ACTION")
                .value_parser(["list", "resend", "drop"])
                .required(true)
                .help("What to do: list, resend or drop"),
            text("index", "NAME", "Only those that this index or data stream refused"),
            text("reason", "WORDS", "Only those with these words in their reason"),
            // One in 64 begins with a hyphen.
            text("id", "ID", "Only the one of the document with this _id").allow_hyphen_values(true),
            switch("all", "All of them: resend and drop want to know which"),
        ]),
        Clap::new("setup").about("Install index template, lifecycle policy and data streams").args([
            switch("dry-run", "Only print the requests that would be sent"),
            text(
                "retention",
                "DURATION",
                "Delete indices so long after their last line, such as 30d; never without",
            ),
        ]),
        Clap::new("healthcheck").about("Exit 0 when the running agent is healthy"),
        Clap::new("prepare-state")
            .about("Make the state directory and give it to the user that the agent will run as; needs root")
            .arg(
                text("owner", "UID:GID", "Whom it shall belong to")
                    .default_value("65534:0")
                    .value_parser(Owner::parse),
            ),
    ];
    let note = "The agent's own flags work here too: see nodewarden --help.";
    // Each of them would have its own copy of several hundred flags, for one that is asked for.
    all.into_iter().map(|sub| sub.after_help(note).defer(|sub| flags::add(sub, true))).collect()
}

fn subcommand(name: &str, given: &ArgMatches) -> Command {
    let text = |name: &str| given.get_one::<String>(name).cloned();
    match name {
        "check" => match text("line").zip(text("file")) {
            Some((line, file)) => {
                let all =
                    |name: &str| given.get_many::<String>(name).into_iter().flatten().cloned().collect();
                let (annotations, labels) = (all("annotation"), all("label"));
                Command::Explain(ExplainArgs { line, file, annotations, labels })
            }
            None => Command::Check,
        },
        "files" => Command::Files,
        "dead-letters" => Command::DeadLetters(LettersArgs {
            action: text("action").unwrap_or_default(),
            index: text("index"),
            reason: text("reason"),
            id: text("id"),
            all: given.get_flag("all"),
        }),
        "setup" => {
            Command::Setup(SetupArgs { dry_run: given.get_flag("dry-run"), retention: text("retention") })
        }
        "healthcheck" => Command::Healthcheck,
        "prepare-state" => {
            Command::PrepareState(given.get_one("owner").copied().unwrap_or(Owner { uid: 65534, gid: 0 }))
        }
        _ => Command::Logs(LogsArgs {
            query: text("query"),
            since: text("since"),
            namespace: text("namespace"),
            pod: text("pod"),
            container: text("container"),
            follow: given.get_flag("follow"),
            json: given.get_flag("json"),
        }),
    }
}

fn stop(error: &clap::Error, command: &Clap) -> Stop {
    let about = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let arg = about(ContextKind::InvalidArg);
    let flag = arg.split([' ', '=']).next().unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::DisplayHelp => return Stop::Answer(error.render().to_string()),
        ErrorKind::DisplayVersion => {
            return Stop::Answer(format!("nodewarden, version {}\n", env!("CARGO_PKG_VERSION")));
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') => unknown_flag(flag, command),
        ErrorKind::UnknownArgument => format!("unexpected '{arg}'"),
        ErrorKind::InvalidSubcommand => unknown_command(&about(ContextKind::InvalidSubcommand), command),
        ErrorKind::InvalidValue | ErrorKind::MissingRequiredArgument if !arg.starts_with('-') => {
            "nodewarden dead-letters takes the actions 'list', 'resend' and 'drop'".into()
        }
        ErrorKind::InvalidValue => format!("flag '{flag}' needs a value"),
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("flag '{flag}' {why}")
        }
        ErrorKind::TooManyValues => format!("flag '{flag}' takes no value"),
        ErrorKind::ArgumentConflict => format!("flag '{flag}' is given twice, keep one"),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".into(),
        kind => kind.as_str().unwrap_or("not understood").to_owned(),
    };
    Stop::Mistake(format!(
        "nodewarden: error: {what}{}see --help",
        if what.ends_with('?') { " " } else { "; " }
    ))
}

fn unknown_flag(flag: &str, command: &Clap) -> String {
    let name = flag.trim_start_matches('-');
    let collector = name.strip_prefix("no-").unwrap_or(name).strip_prefix("collector.");
    if let Some((name, systems)) = collector.and_then(|name| Some((name, elsewhere(name)?))) {
        return format!(
            "flag '{flag}' does nothing on Linux: node_exporter has the collector {name} on {systems} only; remove it"
        );
    }
    let all = command.get_arguments().chain(command.get_subcommands().flat_map(Clap::get_arguments));
    match nearest(name, all.filter_map(Arg::get_long)) {
        Some(near) => format!("unknown flag '{flag}', did you mean '--{near}'?"),
        None => format!("unknown flag '{flag}'"),
    }
}

fn unknown_command(word: &str, command: &Clap) -> String {
    match nearest(word, command.get_subcommands().map(Clap::get_name)) {
        Some(near) => format!("unknown command '{word}', did you mean '{near}'?"),
        None => format!("unknown command '{word}'"),
    }
}

/// The candidate that `word` was most likely meant to be.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names share long beginnings (`collector.`), so that only a very near one counts.
    const ALIKE: f64 = 0.8;
    candidates
        .map(|candidate| (strsim::jaro(word, candidate), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cli(args: &[&str]) -> Result<Cli, Stop> {
        parse(std::iter::once("nodewarden").chain(args.iter().copied()).map(OsString::from))
    }

    fn mistake(args: &[&str]) -> String {
        match cli(args) {
            Err(Stop::Mistake(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_of_flags_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_work_before_and_after_the_command_in_both_forms() {
        let cli = cli(&["--log.level=debug", "check", "--web.telemetry-path", "/m"]).unwrap();
        assert_eq!(cli.command, Command::Check);
        assert_eq!(cli.flags["log.level"], ["debug"]);
        assert_eq!(cli.flags["web.telemetry-path"], ["/m"]);
    }

    #[test]
    fn the_state_s_owner_is_two_numbers() {
        let owner = |args: &[&str]| match cli(args).unwrap().command {
            Command::PrepareState(owner) => (owner.uid, owner.gid),
            other => panic!("{other:?}"),
        };
        assert_eq!(owner(&["prepare-state"]), (65534, 0));
        assert_eq!(owner(&["prepare-state", "--owner=1000:7", "--state.dir=/x"]), (1000, 7));
        assert_eq!(
            mistake(&["prepare-state", "--owner=nobody"]),
            "nodewarden: error: flag '--owner' needs UID:GID such as 65534:0, not 'nobody'; see --help"
        );
    }

    #[test]
    fn dead_letters_are_listed() {
        let expected = |action: &str, reason: Option<&str>, all| {
            let (action, reason) = (action.to_owned(), reason.map(str::to_owned));
            Command::DeadLetters(LettersArgs { action, reason, all, ..LettersArgs::default() })
        };
        assert_eq!(cli(&["dead-letters", "list"]).unwrap().command, expected("list", None, false));
        let some = cli(&["dead-letters", "resend", "--reason", "strict"]).unwrap().command;
        assert_eq!(some, expected("resend", Some("strict"), false));
        assert_eq!(cli(&["dead-letters", "drop", "--all"]).unwrap().command, expected("drop", None, true));
        let hyphen = cli(&["dead-letters", "drop", "--id", "-Abc"]).unwrap().command;
        assert!(matches!(hyphen, Command::DeadLetters(LettersArgs { id: Some(id), .. }) if id == "-Abc"));
        for args in [&["dead-letters"][..], &["dead-letters", "lst"]] {
            assert!(mistake(args).contains("takes the actions 'list'"), "{}", mistake(args));
        }
    }

    #[test]
    fn collectors_are_turned_on_and_off() {
        assert_eq!(cli(&["--collector.loadavg"]).unwrap().flags["collector.loadavg"], ["true"]);
        assert_eq!(cli(&["--no-collector.loadavg"]).unwrap().flags["collector.loadavg"], ["false"]);
    }

    #[test]
    fn an_unknown_flag_gets_a_suggestion() {
        assert_eq!(
            mistake(&["--web.listen-adress=:1"]),
            "nodewarden: error: unknown flag '--web.listen-adress', did you mean '--web.listen-address'? see --help"
        );
        assert_eq!(mistake(&["--zzz"]), "nodewarden: error: unknown flag '--zzz'; see --help");
        assert_eq!(
            mistake(&["chek"]),
            "nodewarden: error: unknown command 'chek', did you mean 'check'? see --help"
        );
        assert_eq!(
            mistake(&["--log.level"]),
            "nodewarden: error: flag '--log.level' needs a value; see --help"
        );
        assert_eq!(
            mistake(&["--collector.loadavg=true"]),
            "nodewarden: error: flag '--collector.loadavg' takes no value; see --help"
        );
        assert_eq!(mistake(&["check", "me"]), "nodewarden: error: unexpected 'me'; see --help");
        assert_eq!(
            mistake(&["logs", "--pod=a", "--pod=b"]),
            "nodewarden: error: flag '--pod' is given twice, keep one; see --help"
        );
    }

    #[test]
    fn collectors_of_other_systems_are_refused_with_the_reason() {
        for (flag, systems) in [
            ("--collector.devstat", "FreeBSD"),
            ("--no-collector.boottime", "BSD"),
            ("--collector.thermal", "macOS"),
        ] {
            let said = mistake(&[flag]);
            assert!(said.contains("does nothing on Linux") && said.contains(systems), "{said}");
        }
    }

    #[test]
    fn logs_has_its_own_words() {
        let cli = cli(&["logs", "oom killed", "--since", "10m", "--follow"]).unwrap();
        let Command::Logs(args) = cli.command else { panic!("not logs") };
        assert_eq!((args.query.as_deref(), args.since.as_deref()), (Some("oom killed"), Some("10m")));
        assert!(args.follow && !args.json);
    }

    proptest! {
        #[test]
        fn any_arguments_are_answered(args in proptest::collection::vec("-{0,2}[a-z.=\\[\\]\\PC]{0,12}", 0..5)) {
            let _ = parse(std::iter::once("nodewarden".into()).chain(args.into_iter().map(OsString::from)));
        }
    }
}
