//! The tracing subscriber: for people on a terminal, JSON lines otherwise, always on standard error.

use std::any::Any;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that overrides the configured level, with the syntax of `RUST_LOG`.
pub const LEVEL_VARIABLE: &str = "INSTEP_LOG";

/// Libraries that log every scanner's broken connection or every statement. A directive for the same target overrides it.
const QUIET: &str =
    "hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,sea_orm=warn,sea_orm_migration=warn,sqlx=warn,warp=warn,ractor=warn";

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is not one of `error`, `warn`, `info`, `debug`, `trace` or a list of directives.
    #[error("log level {level:?}: {error}")]
    Level {
        /// The text as configured.
        level: String,
        /// What is wrong with it.
        error: tracing_subscriber::filter::ParseError,
    },
    /// This process has a subscriber already.
    #[error("logging is set up already")]
    Twice,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For reading.
    Human,
    /// For collecting.
    Json,
}

/// Sets up logging for the process, once. `level` is the configured one; [`LEVEL_VARIABLE`] goes before it.
///
/// # Errors
/// [`Error`] when the level cannot be read or logging was set up before.
pub fn init(level: &str, format: Format) -> Result<(), Error> {
    let wanted = std::env::var(LEVEL_VARIABLE).ok().filter(|wanted| !wanted.trim().is_empty());
    let shape = match format {
        Format::Human => Shape::Human,
        Format::Json => Shape::Json,
        Format::Auto if io::stderr().is_terminal() => Shape::Human,
        Format::Auto => Shape::Json,
    };
    subscriber(wanted.as_deref().unwrap_or(level), shape, io::stderr)?.try_init().map_err(|_| Error::Twice)
}

/// From now on a panic is a log line with its place.
///
/// The standard library would print the message, and a formatted one may quote what was worked on: a text that is cut in the
/// middle of a character is printed whole. So a message is shown only where it stands in the program.
pub fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, said = fixed_message(panic.payload()), "panicked");
    }));
}

fn fixed_message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("formatted, so not shown")
}

/// Checks a level without setting anything up, for the configuration.
///
/// # Errors
/// [`Error::Level`] when it cannot be read.
pub fn check(level: &str) -> Result<(), Error> {
    filter(level).map(drop)
}

#[derive(Clone, Copy)]
enum Shape {
    Human,
    Json,
}

fn subscriber<W>(level: &str, shape: Shape, writer: W) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(writer);
    Ok(match shape {
        Shape::Human => Box::new(builder.with_ansi(io::stderr().is_terminal()).finish()),
        Shape::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    let directives = format!("{QUIET},{}", level.trim());
    EnvFilter::builder().parse(directives).map_err(|error| Error::Level { level: level.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while writing").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(level: &str, shape: Shape, speak: impl FnOnce()) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(level, shape, move || writer.clone()).expect("a good level");
        tracing::subscriber::with_default(subscriber, speak);
        let bytes = memory.0.lock().expect("no test panics while writing").clone();
        String::from_utf8(bytes).expect("logs are text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_one_json_object_with_its_fields() {
        let lines = lines("info", Shape::Json, || {
            tracing::info!(source = %"pmp", "gap opened");
            tracing::debug!("not wanted");
        });
        let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
        let line: serde_json::Value = serde_json::from_str(line).expect("json");
        assert_eq!((&line["message"], &line["source"], &line["level"]), (&"gap opened".into(), &"pmp".into(), &"INFO".into()));
    }

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let speak = || {
            tracing::info!(target: "sqlx::query", "a statement");
            tracing::info!(target: "instep::store", "ours");
        };
        let quiet = lines("info", Shape::Human, speak);
        assert!(quiet.len() == 1 && quiet[0].contains("ours"), "{quiet:?}");
        let loud = lines("info,sqlx=info", Shape::Human, speak);
        assert!(loud.len() == 2 && loud[0].contains("a statement"), "{loud:?}");
    }

    #[test]
    fn a_panic_is_told_without_what_it_quotes() {
        let message = |panic: fn()| {
            let payload = std::panic::catch_unwind(panic).expect_err("it panics");
            fixed_message(&*payload)
        };
        assert_eq!(message(|| panic!("an invariant")), "an invariant");
        // The standard library's own message quotes the text.
        let quoting = message(|| assert!(!"Zażółć, the name of a person"[..3].is_empty()));
        assert_eq!(quoting, "formatted, so not shown");
    }

    #[test]
    fn a_bad_level_is_an_error() {
        assert!(check("info").is_ok() && check("instep=debug,warn").is_ok());
        assert!(matches!(check("info,instep=loudly"), Err(Error::Level { .. })));
    }
}
