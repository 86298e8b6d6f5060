//! The world that the demo tools act on, and how often each of them did.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::catalog;

/// Why a permitted call had no effect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ToolError {
    /// No such tool here.
    #[error("there is no tool `{0}`")]
    UnknownTool(String),
    /// The arguments are not what the tool takes.
    #[error("the arguments do not fit: {0}")]
    Arguments(String),
    /// What the call names does not exist, or does not suffice.
    #[error("{0}")]
    State(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadRecord {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartService {
    service: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferFunds {
    from: String,
    to: String,
    amount: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropDatabase {
    name: String,
}

/// Services, accounts, records, databases and the counts, behind one lock.
pub(crate) struct World(Mutex<State>);

struct State {
    restarts: BTreeMap<String, u64>,
    cents: BTreeMap<String, u64>,
    records: BTreeMap<&'static str, Value>,
    databases: Vec<String>,
    executions: BTreeMap<&'static str, u64>,
    refused: u64,
}

impl World {
    /// The world as every start finds it.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            restarts: BTreeMap::new(),
            cents: [("operations", 1_000_000), ("payroll", 500_000), ("savings", 0)]
                .map(|(name, cents)| (name.to_owned(), cents))
                .into(),
            records: [
                ("42", json!({"customer": "Ada", "plan": "pro"})),
                ("43", json!({"customer": "Grace", "plan": "free"})),
            ]
            .into(),
            databases: vec!["orders".to_owned(), "customers".to_owned()],
            executions: catalog::tools().into_iter().map(|tool| (tool.name, 0)).collect(),
            refused: 0,
        }))
    }

    /// Does what the tool does, counts it and says it on the console.
    pub(crate) fn execute(&self, tool: &str, arguments: Value) -> Result<Value, ToolError> {
        self.with(|state| {
            let result = state.act(tool, arguments)?;
            if let Some(count) = state.executions.get_mut(tool) {
                *count += 1;
            }
            tracing::info!(tool, %result, "executed");
            Ok(result)
        })
    }

    /// Counts a call that carried no good token.
    pub(crate) fn count_refused(&self) {
        self.with(|state| state.refused += 1);
    }

    /// `{"executions": {<tool>: <times>}, "refused": <times>}`
    pub(crate) fn counts(&self) -> Value {
        self.with(|state| json!({"executions": state.executions, "refused": state.refused}))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn act(&mut self, tool: &str, arguments: Value) -> Result<Value, ToolError> {
        match tool {
            "read_record" => self.read_record(&read(arguments)?),
            "restart_service" => Ok(self.restart_service(&read(arguments)?)),
            "transfer_funds" => self.transfer_funds(read(arguments)?),
            "drop_database" => self.drop_database(&read(arguments)?),
            other => Err(ToolError::UnknownTool(other.to_owned())),
        }
    }

    fn read_record(&self, call: &ReadRecord) -> Result<Value, ToolError> {
        let record = self.records.get(call.id.as_str());
        let record = record.ok_or_else(|| ToolError::State(format!("there is no record `{}`", call.id)))?;
        Ok(json!({"id": call.id, "record": record}))
    }

    fn restart_service(&mut self, call: &RestartService) -> Value {
        let restarts = self.restarts.entry(call.service.clone()).or_default();
        *restarts += 1;
        json!({"service": call.service, "status": "restarted", "restarts": *restarts})
    }

    fn transfer_funds(&mut self, call: TransferFunds) -> Result<Value, ToolError> {
        let TransferFunds { from, to, amount } = call;
        let amount = u64::from(amount);
        let unknown = |name: &str| ToolError::State(format!("there is no account `{name}`"));
        let held = *self.cents.get(&from).ok_or_else(|| unknown(&from))?;
        let had = *self.cents.get(&to).ok_or_else(|| unknown(&to))?;
        if from == to {
            return Err(ToolError::State("the two accounts are the same".to_owned()));
        }
        let left = held
            .checked_sub(amount)
            .ok_or_else(|| ToolError::State(format!("`{from}` holds {held} cents, not {amount}")))?;
        self.cents.insert(from.clone(), left);
        self.cents.insert(to.clone(), had + amount);
        Ok(json!({"from": from, "to": to, "amount": amount, "balances": {from: left, to: had + amount}}))
    }

    fn drop_database(&mut self, call: &DropDatabase) -> Result<Value, ToolError> {
        let before = self.databases.len();
        self.databases.retain(|name| *name != call.name);
        if self.databases.len() == before {
            return Err(ToolError::State(format!("there is no database `{}`", call.name)));
        }
        Ok(json!({"dropped": call.name, "databases": self.databases}))
    }
}

fn read<T: for<'de> Deserialize<'de>>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|e| ToolError::Arguments(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_kept_and_counted() {
        let world = World::new();
        world.execute("restart_service", json!({"service": "a"})).unwrap();
        let second = world.execute("restart_service", json!({"service": "a"})).unwrap();
        assert_eq!(second["restarts"], 2);
        assert_eq!(world.counts()["executions"]["restart_service"], 2);
        assert_eq!(world.counts()["executions"]["read_record"], 0);
    }

    #[test]
    fn a_transfer_keeps_the_sum() {
        let world = World::new();
        let done = world
            .execute("transfer_funds", json!({"from": "operations", "to": "savings", "amount": 400}))
            .unwrap();
        assert_eq!(done["balances"], json!({"operations": 999_600, "savings": 400}));
        let refused = json!({"from": "savings", "to": "operations", "amount": 401});
        assert!(matches!(world.execute("transfer_funds", refused), Err(ToolError::State(_))));
        assert_eq!(world.counts()["executions"]["transfer_funds"], 1, "a failed transfer is no execution");
    }

    #[test]
    fn a_call_that_does_not_fit_has_no_effect() {
        let world = World::new();
        let surplus = json!({"name": "orders", "force": true});
        assert!(matches!(world.execute("drop_database", surplus), Err(ToolError::Arguments(_))));
        assert!(matches!(world.execute("nothing", json!({})), Err(ToolError::UnknownTool(_))));
        assert_eq!(world.counts()["executions"]["drop_database"], 0);
    }
}
