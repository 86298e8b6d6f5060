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
use crate::logs::{self, Format};
use crate::run::{SERVER_FILTER, Stop, block_on};
use crate::storage::Storage;

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
    #[command(flatten)]
    storage: Storage,
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
    /// Bring the schema of the database up to date, as a backend does when it starts
    Migrate {
        #[command(flatten)]
        storage: Storage,
    },
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
    #[command(flatten)]
    storage: Storage,
}

/// Serves, or does one thing in the data directory.
pub(crate) fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<Done> {
    match args.command {
        None => serve(args.serve),
        Some(Local::Migrate { storage }) => {
            logs::init(Format::Text, "warn")?;
            let database = storage.database()?;
            let dir = storage.existing(&database)?;
            block_on(async { Ok(oakallow_backend::migrate(&dir, &database).await?) })?;
            Ok(Done::Ok)
        }
        Some(Local::Bootstrap { person }) => {
            let first = Bootstrap { org: person.org, owner_email: person.email };
            let config = configured(&person.storage, person.storage.data_dir()?)?;
            let key = locally(config, async |backend| Ok(backend.bootstrap(first).await?))?;
            writeln!(out, "{}", key.expose())?;
            Ok(Done::Ok)
        }
        Some(Local::LoginLink { person, public_url }) => {
            let dir = person.storage.existing(&person.storage.database()?)?;
            let config = Config { public_url: Some(public_url), ..configured(&person.storage, dir)? };
            let link = locally(config, async |backend| {
                Ok(backend.issue_login_link(&person.org, &person.email).await?)
            })?;
            writeln!(out, "{link}")?;
            Ok(Done::Ok)
        }
    }
}

fn serve(args: Serve) -> anyhow::Result<Done> {
    logs::init(args.log_format, SERVER_FILTER)?;
    let config = configured(&args.storage, args.storage.data_dir()?)?;
    let config = Config { listen: args.listen, public_url: args.public_url, ..config };
    block_on(async {
        let mut stop = Stop::listen()?;
        let backend = oakallow_backend::start(config).await.context("the backend cannot start")?;
        tracing::info!(listen = %backend.addr, "the backend is ready");
        stop.requested().await;
        tracing::info!("stopping");
        backend.shutdown().await;
        Ok(Done::Ok)
    })
}

/// A backend on that storage.
fn configured(storage: &Storage, data_dir: PathBuf) -> anyhow::Result<Config> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (database, key_file) = (storage.database()?, storage.key_file.clone());
    Ok(Config { database, key_file, ..Config::new(nowhere, data_dir) })
}

/// Opens the data for one operation. A backend that serves it meanwhile is not disturbed: the database takes several
/// processes.
fn locally<T>(
    config: Config,
    operation: impl AsyncFnOnce(&Running) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    logs::init(Format::Text, "warn")?;
    block_on(async {
        let config = Config { alone: false, ..config };
        let backend = oakallow_backend::start(config).await.context("the data cannot be opened")?;
        let result = operation(&backend).await;
        backend.shutdown().await;
        result
    })
}
