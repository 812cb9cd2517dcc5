//! `instep hooks`: the webhook registrations of a source, by way of the running daemon, so that its rate limits hold.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{EX_SOFTWARE, EX_USAGE, client, complain, failed, prepared};

/// Arguments of `instep hooks`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  instep hooks create pmp\n  instep hooks list pmp --json\n  instep hooks invite mls\n  instep hooks invite mls --revoke 1a2b3c4d\n\n\
    Needs public_url and manage_token of the source. Without the right to register webhooks the source stays poll-only.\n\
    An invitation needs public_url only; two may live at once, so that a token can be replaced without a gap."
)]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub action: Action,
    /// Which source
    pub source: String,
    /// With `invite`: end this invitation instead of making one
    #[arg(long, value_name = "ID")]
    pub revoke: Option<String>,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// What can be done with registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// Register what is missing, replace what is switched off
    Create,
    /// Show ours as they stand upstream
    #[value(alias = "show")]
    List,
    /// Remove ours
    Delete,
    /// Make a token for a sender that is to show one of ours, and show it once
    Invite,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    if args.revoke.is_some() && args.action != Action::Invite {
        return complain(EX_USAGE, "--revoke goes with `invite` only");
    }
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let action = match args.action {
        Action::Create => "create",
        Action::List => "list",
        Action::Delete => "delete",
        Action::Invite => "invite",
    };
    let request = json!({ "action": action, "source": args.source, "revoke": args.revoke });
    match runtime.block_on(client::control(&config, "hooks", &request)) {
        Ok(answer) => show(args, &answer),
        Err(error) => failed(error),
    }
}

/// What the sender's form asks for.
fn invitation(out: &mut impl std::io::Write, answer: &Value) -> std::io::Result<()> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or("-");
    writeln!(out, "Give this to the sender. The token is shown this once: only its SHA-256 is kept.\n")?;
    writeln!(out, "  URL     {}\n  Header  {}: {}", text("url"), text("header"), text("value"))?;
    if let Some(label) = answer.get("label").filter(|label| label.is_object()) {
        let of = |name: &str| label.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        writeln!(out, "  Label   {}: {}", of("header"), of("value"))?;
    }
    writeln!(out, "\nEnd it with: instep hooks invite {} --revoke {}", text("source"), text("id"))
}

fn show(args: &Args, answer: &Value) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let written = if args.json {
        writeln!(out, "{answer}")
    } else if let Some(rows) = answer.get("registrations").and_then(Value::as_array) {
        let mut invited = |row: &Value| {
            let (id, made, revoked) = (text(row, "id"), text(row, "created_at"), text(row, "revoked_at"));
            let state = if revoked == "-" { "live".to_owned() } else { format!("revoked {revoked}") };
            writeln!(out, "{id:<10} made {made}  {state}")
        };
        let invitations = answer.get("invitations").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        invitations
            .iter()
            .try_for_each(&mut invited)
            .and_then(|()| {
                rows.iter().try_for_each(|row| writeln!(out, "{:<24} {:<12} {}", text(row, "route"), text(row, "state"), text(row, "id")))
            })
            .and_then(|()| writeln!(out, "{} registration(s), {} invitation(s)", rows.len(), invitations.len()))
    } else if let Some(id) = answer.get("revoked").and_then(Value::as_str) {
        writeln!(out, "invitation {id} is revoked: its token is refused from now on")
    } else if answer.get("token").is_some() {
        invitation(&mut out, answer)
    } else {
        writeln!(out, "{} registration(s) removed", answer.get("deleted").unwrap_or(&Value::Null))
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}
