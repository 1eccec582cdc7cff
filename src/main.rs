//! The `nodewarden` binary.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use nodewarden::{
    agent, ask,
    cli::{self, Cli, Command, Stop},
    config::{self, Env, Loaded, Machine, Reading},
    explain, gpu, setup, state_dir, telemetry,
};
use nodewarden_gpu::helper;

fn main() -> ExitCode {
    // It reads no configuration, and shall stay small.
    if std::env::args_os().nth(1).is_some_and(|word| word == gpu::HELPER) {
        return helper::run();
    }
    let done = match cli::parse(std::env::args_os()) {
        Ok(cli) => command(&cli),
        Err(Stop::Answer(text)) => io::stdout().write_all(text.as_bytes()).map(|()| true).map_err(Into::into),
        Err(Stop::Mistake(text)) => writeln!(io::stderr(), "{text}").map(|()| false).map_err(Into::into),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `nodewarden check | head`: the reader has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(io::stderr(), "nodewarden: error: {}", telemetry::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Does what was asked; false when it was asked wrongly and that was said.
fn command(cli: &Cli) -> anyhow::Result<bool> {
    let lossy = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    let env: Env = std::env::vars_os().map(lossy).collect();
    let machine = Machine::look(&env);
    match &cli.command {
        Command::Check => Ok(config::check(cli, &env, &machine, &mut io::stdout(), &mut io::stderr())?),
        Command::Explain(args) => with_config(cli, &env, &machine, |loaded| {
            explain::explain(&loaded.config, args, &mut io::stdout().lock())
        }),
        Command::Run => run(cli, &env, &machine),
        Command::Logs(args) => with_config(cli, &env, &machine, |loaded| {
            ask::logs(&loaded.config.state_dir, args, &mut io::stdout().lock())
        }),
        Command::Files => with_config(cli, &env, &machine, |loaded| {
            ask::files(&loaded.config.state_dir, &mut io::stdout().lock())
        }),
        Command::DeadLetters(args) => with_config(cli, &env, &machine, |loaded| {
            ask::dead_letters(&loaded.config.state_dir, args, &mut io::stdout().lock())
        }),
        Command::Setup(args) => {
            let mut all_done = false;
            let is_read = with_config(cli, &env, &machine, |loaded| {
                let options = setup::Options::new(args.dry_run, args.retention.as_deref())?;
                all_done = setup::run(&loaded.config, &options, &mut io::stdout().lock(), &mut io::stderr())?;
                Ok(())
            })?;
            Ok(is_read && all_done)
        }
        Command::PrepareState(owner) => {
            with_config(cli, &env, &machine, |loaded| state_dir::prepare(&loaded.config.state_dir, *owner))
        }
        Command::Healthcheck => with_config(cli, &env, &machine, |loaded| {
            ask::healthcheck(&loaded.config.web, &loaded.config.state_dir, &mut io::stdout().lock())
        }),
    }
}

fn run(cli: &Cli, env: &Env, machine: &Machine) -> anyhow::Result<bool> {
    let reading = Reading::new(cli, env, machine);
    let Some(loaded) = load(cli, env, machine)? else { return Ok(false) };
    let speech = telemetry::init(&loaded.config.log)?;
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    agent::run(loaded, reading, speech).map(|()| true)
}

/// Does something with the configuration in force; false when there is none and every mistake was said.
fn with_config(
    cli: &Cli,
    env: &Env,
    machine: &Machine,
    act: impl FnOnce(&Loaded) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    match load(cli, env, machine)? {
        Some(loaded) => act(&loaded).map(|()| true),
        None => Ok(false),
    }
}

/// The configuration in force; `None` when there is none and every mistake was said.
fn load(cli: &Cli, env: &Env, machine: &Machine) -> io::Result<Option<Loaded>> {
    match config::load(cli, env, machine) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(mistakes) => writeln!(io::stderr(), "{mistakes}").map(|()| None),
    }
}
