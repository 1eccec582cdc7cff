//! Prints the page of the default collectors once: `cargo run --example page [FLAG=VALUE ...]`.

use std::io::Write;

use nodewarden_collectors::{Host, Options, Samples, Settings, node, text};

fn main() -> std::io::Result<()> {
    let host = Host::default();
    let mut settings = Settings::new();
    for argument in std::env::args().skip(1) {
        if let Some((name, value)) = argument.split_once('=') {
            settings.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    let mut samples = Samples::new();
    let mut errors = std::io::stderr().lock();
    for entry in node::ALL.iter().filter(|entry| entry.default_on) {
        match (entry.build)(&host, &Options::new(entry, &settings)) {
            Ok(mut collector) => {
                if let Err(error) = collector.collect(&host, &mut samples) {
                    writeln!(errors, "{}: {error}", entry.name)?;
                }
            }
            Err(error) => writeln!(errors, "{}: {error}", entry.name)?,
        }
    }
    let mut page = Vec::new();
    text::write(&samples, &mut page);
    std::io::stdout().lock().write_all(&page)
}
