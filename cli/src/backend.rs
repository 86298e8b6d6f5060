//! `oakallow backend`: the control plane alone, and what its local administrator does.
//!
//! The local operations need the data directory and nothing else: who has it owns the data anyway.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use oakallow_backend::{Bootstrap, Config, Running};

use crate::Done;
use crate::address;
use crate::data_dir;
use crate::logs::{self, Format};
use crate::run::{SERVER_FILTER, Stop, block_on};

/// `oakallow backend`
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Local>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(clap::Args)]
struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = "127.0.0.1:4000", env = "OAKALLOW_LISTEN")]
    listen: SocketAddr,
    /// Where database and keys live; made if missing, readable by its owner only
    #[arg(long, value_name = "DIR", default_value = "oakallow-data", env = "OAKALLOW_DATA_DIR")]
    data_dir: PathBuf,
    /// How people reach it [default: http://localhost:PORT]
    #[arg(long, value_name = "URL", env = "OAKALLOW_PUBLIC_URL")]
    public_url: Option<String>,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
}

/// What is done in the data directory, without a credential.
#[derive(clap::Subcommand)]
enum Local {
    /// Create an org and its owner where they are missing, and print a new management key
    Bootstrap {
        #[command(flatten)]
        person: Person,
    },
    /// Print a link that signs a person in, once
    LoginLink {
        #[command(flatten)]
        person: Person,
        /// How people reach the backend
        #[arg(
            long,
            value_name = "URL",
            default_value = "http://localhost:4000",
            env = "OAKALLOW_PUBLIC_URL"
        )]
        public_url: String,
    },
}

#[derive(clap::Args)]
struct Person {
    /// The org
    #[arg(long)]
    org: String,
    /// The person's e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: String,
    /// Where database and keys live
    #[arg(long, value_name = "DIR", default_value = "oakallow-data", env = "OAKALLOW_DATA_DIR")]
    data_dir: PathBuf,
}

/// Serves, or does one thing in the data directory.
pub(crate) fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    match args.command {
        None => serve(args.serve),
        Some(Local::Bootstrap { person }) => {
            let first = Bootstrap { org: person.org, owner_email: person.email };
            let dir = data_dir::existing_or_new(&person.data_dir)?;
            let key = locally(dir, None, async |backend| Ok(backend.bootstrap(first).await?))?;
            writeln!(out, "{}", key.expose())?;
            Ok(Done::Ok)
        }
        Some(Local::LoginLink { person, public_url }) => {
            let dir = data_dir::existing(&person.data_dir)?;
            let link = locally(dir, Some(public_url), async |backend| {
                Ok(backend.issue_login_link(&person.org, &person.email).await?)
            })?;
            writeln!(out, "{link}")?;
            Ok(Done::Ok)
        }
    }
}

fn serve(args: Serve) -> anyhow::Result<Done> {
    logs::init(args.log_format, SERVER_FILTER)?;
    let dir = data_dir::existing_or_new(&args.data_dir)?;
    block_on(async {
        let mut stop = Stop::listen()?;
        let config = Config { public_url: args.public_url, ..Config::new(args.listen, dir) };
        let backend = oakallow_backend::start(config).await.context("the backend cannot start")?;
        tracing::info!(listen = %backend.addr, "the backend is ready");
        stop.requested().await;
        tracing::info!("stopping");
        backend.shutdown().await;
        Ok(Done::Ok)
    })
}

/// Opens a data directory for one operation. A backend that serves it meanwhile is not disturbed: the
/// database takes several processes.
fn locally<T>(
    dir: PathBuf,
    public_url: Option<String>,
    operation: impl AsyncFnOnce(&Running) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    logs::init(Format::Text, "warn")?;
    block_on(async {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config { public_url, alone: false, ..Config::new(nowhere, dir) };
        let backend = oakallow_backend::start(config).await.context("the data cannot be opened")?;
        let result = operation(&backend).await;
        backend.shutdown().await;
        result
    })
}
