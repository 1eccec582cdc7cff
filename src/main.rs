//! The `nodewarden` binary.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use nodewarden::{
    agent,
    cli::{self, Cli, Command, Stop},
    config::{self, Env, Machine},
    telemetry,
};

fn main() -> ExitCode {
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
            let _ = writeln!(io::stderr(), "nodewarden: error: {error:#}");
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
        Command::Run => run(cli, &env, &machine),
        Command::Logs(_) | Command::Files | Command::Healthcheck => {
            anyhow::bail!("this command is not available in this version yet")
        }
    }
}

fn run(cli: &Cli, env: &Env, machine: &Machine) -> anyhow::Result<bool> {
    let loaded = match config::load(cli, env, machine) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            writeln!(io::stderr(), "{mistakes}")?;
            return Ok(false);
        }
    };
    telemetry::init(&loaded.config.log)?;
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    agent::run(loaded.config)?;
    Ok(true)
}
