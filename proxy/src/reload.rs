//! Another configuration for a proxy that runs: its file is looked at every so often, and when SIGHUP asks for it.
//! A file that is not accepted changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::document::DocumentError;

use crate::app::App;
use crate::config::Config;
use crate::forward::LinkError;
use crate::watch::{Look, Seen, Watch};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes up a configuration in place of the one that runs.
pub fn apply(app: &App, config: Config) -> Result<(), LinkError> {
    let next = app.live().followed_by(config, app.identity.redaction_key(), &app.metrics)?;
    app.holds.set_limits(&next.config.limits);
    app.spool.set_limits(&next.config.limits);
    app.policy.set_staleness(next.config.staleness.clone());
    let next = Arc::new(next);
    app.live.store(next.clone());
    app.metrics.keep_ways_of(&next.config.routes);
    Ok(())
}

/// Follows the file that the running configuration was read from, until the task is dropped.
pub async fn follow(app: Arc<App>, path: PathBuf) {
    let mut watch = Watch::new("the configuration", LOOK_EVERY);
    if !tokio::fs::metadata(&path).await.is_ok_and(|found| found.is_file()) {
        tracing::info!(file = %path.display(), "the configuration is not in a file that can be read again: it is not followed");
        return;
    }
    // What the running configuration was read from may have changed since; then it is read again.
    let mut seen = Seen::settling();
    loop {
        let look = watch.next().await;
        let text = tokio::fs::read_to_string(&path).await.map_err(|e| e.to_string());
        let first = look == Look::Due && seen.is_first();
        if seen.is_news(&text, look) {
            let (taking, file) = (app.clone(), path.display().to_string());
            // Certificates and secrets are read as well, which may take a while: no call waits for that.
            let taken = tokio::task::spawn_blocking(move || take(&taking, &file, text)).await;
            let result = taken.unwrap_or("refused");
            if !(first && result == "unchanged") {
                app.metrics.config_reloads.with_label_values(&[result]).inc();
            }
        }
    }
}

/// Says what a configuration leaves open.
pub fn caution(config: &Config) {
    for caution in config.cautions() {
        tracing::warn!(caution, "the configuration leaves something open");
    }
}

fn take(app: &App, file: &str, text: Result<String, String>) -> &'static str {
    let unread = |message| DocumentError { file: file.to_owned(), at: None, message, hint: None };
    let running = &app.live().config;
    let read = text.map_err(unread).and_then(|text| running.successor(file, &text));
    let taken = read.and_then(|config| {
        let changed = config != *running;
        if changed {
            let loosened = running.loosened_by(&config);
            apply(app, config).map_err(|e| unread(e.to_string()))?;
            for what in loosened {
                tracing::warn!(
                    file,
                    what,
                    "the configuration that was reloaded is looser than the one before"
                );
            }
            caution(&app.live().config);
        }
        Ok(changed)
    });
    let result = match taken {
        Ok(false) => "unchanged",
        Ok(true) => {
            tracing::info!(file, "the configuration was reloaded");
            "applied"
        }
        Err(problem) => {
            tracing::error!(%problem, "the configuration is not accepted: the one that runs stays");
            "refused"
        }
    };
    app.metrics.config_refused.set(i64::from(result == "refused"));
    result
}
