//! The definitions of tools, as their tool servers list them: held against the pins, and told to the backend.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oakallow_policy::id::Name;
use oakallow_policy::pin::{self, DefinitionDigest};
use oakallow_policy::wire::{SeenDefinition, SeenDefinitions};
use oakallow_policy::{Call, RuleSet};
use serde_json::Value;
use tokio::sync::Notify;

/// Tools that nobody registered are remembered up to here: a tool server must not fill the memory. Registered
/// ones always are.
const UNREGISTERED_MAX: usize = 1_000;
/// Definitions in one report, and about their bytes: a quarter of what the backend takes.
const REPORT_MAX: usize = 100;
const REPORT_BYTES_MAX: usize = 1024 * 1024;
/// Of a larger definition only that it is another one is known; what says so much is not for people to read.
const DEFINITION_BYTES_MAX: usize = 256 * 1024;

/// A tool at a tool server.
type Place = (Name, Name);

struct Seen {
    digest: DefinitionDigest,
    registered: bool,
    /// What the backend is still to be told.
    untold: Option<Value>,
}

/// What this proxy saw.
#[derive(Default)]
pub struct Definitions {
    seen: Mutex<HashMap<Place, Seen>>,
    news: Notify,
}

impl Definitions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the tools of a list, before anything is left out of it.
    pub fn note(&self, rules: &RuleSet, audience: &Name, tools: &[Value]) {
        let mut news = false;
        for definition in tools {
            let name = definition.get("name").and_then(Value::as_str).and_then(|name| Name::new(name).ok());
            if let Some(name) = name {
                news |= self.note_one(rules, (audience.clone(), name), definition);
            }
        }
        if news {
            self.news.notify_one();
        }
    }

    fn note_one(&self, rules: &RuleSet, place: Place, definition: &Value) -> bool {
        let known = rules.pin(&place.1, &place.0);
        let registered = rules.tool(&place.1, &place.0).is_some();
        let digest = match digest(definition) {
            Some(digest) => digest,
            None if registered => UNREADABLE,
            None => return false,
        };
        let mut seen = self.lock();
        let before = seen.get(&place);
        let back_as_pinned = known.is_some_and(|(pinned, changed)| changed && *pinned == digest);
        if before.is_some_and(|before| before.digest == digest) && !back_as_pinned {
            return false;
        }
        let unregistered = || seen.values().filter(|seen| !seen.registered).count();
        if before.is_none() && !registered && unregistered() >= UNREGISTERED_MAX {
            return false;
        }
        let as_known = known.is_some_and(|(pinned, changed)| !changed && *pinned == digest);
        let untold = (!as_known && digest != UNREADABLE).then(|| definition.clone());
        let news = untold.is_some();
        seen.insert(place, Seen { digest, registered, untold });
        news
    }

    /// Whether the tool of a call was last listed otherwise than it was pinned.
    pub(super) fn differs(&self, rules: &RuleSet, call: &Call<'_>) -> bool {
        let Some((pinned, _)) = rules.pin(call.tool, call.audience) else { return false };
        let Ok(place) = Name::new(call.audience).and_then(|a| Ok((a, Name::new(call.tool)?))) else {
            return false;
        };
        self.lock().get(&place).is_some_and(|seen| seen.digest != *pinned)
    }

    /// Waits until there is something to tell.
    pub async fn wait(&self) {
        self.news.notified().await;
    }

    /// What the backend is to be told, as much as goes into one request; `None` when there is nothing.
    pub fn untold(&self) -> Option<SeenDefinitions> {
        let seen = self.lock();
        let mut untold = seen.iter().filter_map(|(place, seen)| Some((place, seen.untold.as_ref()?)));
        let ((audience, name), definition) = untold.next()?;
        let mut report = SeenDefinitions {
            audience: audience.clone(),
            definitions: vec![SeenDefinition { name: name.clone(), definition: definition.clone() }],
        };
        let mut bytes = definition.to_string().len();
        for ((_, name), definition) in untold.filter(|((of, _), _)| of == audience).take(REPORT_MAX - 1) {
            bytes += definition.to_string().len();
            if bytes > REPORT_BYTES_MAX {
                break;
            }
            report.definitions.push(SeenDefinition { name: name.clone(), definition: definition.clone() });
        }
        Some(report)
    }

    /// The backend was told, or will not hear it.
    pub fn told(&self, report: &SeenDefinitions) {
        let mut seen = self.lock();
        for SeenDefinition { name, definition } in &report.definitions {
            let entry = seen.get_mut(&(report.audience.clone(), name.clone()));
            // It may be another one again by now.
            if let Some(entry) = entry.filter(|entry| entry.untold.as_ref() == Some(definition)) {
                entry.untold = None;
            }
        }
    }
}

/// Stands for a definition that has no digest, or is too large to have one: no pin is like it.
const UNREADABLE: DefinitionDigest = [0; 32];

fn digest(definition: &Value) -> Option<DefinitionDigest> {
    let small = definition.to_string().len() <= DEFINITION_BYTES_MAX;
    if small { pin::digest(definition).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use oakallow_policy::canonical::hex;
    use oakallow_policy::ruleset::OrgPolicy;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn rules(pinned: Option<(&Value, bool)>) -> RuleSet {
        let pins = pinned.map(|(definition, changed)| {
            json!({"tool": "pay", "audience": "bank", "sha256": hex(&pin::digest(definition).unwrap()), "changed": changed})
        });
        let policy =
            json!({"org": "demo", "tools": [{"name": "pay", "audience": "bank"}], "pins": pins.as_slice()});
        RuleSet::compile(&serde_json::from_value::<OrgPolicy>(policy).unwrap(), 1).unwrap()
    }

    fn pay() -> Call<'static> {
        Call {
            org: "demo",
            tenant: None,
            principal: "a",
            audience: "bank",
            tool: "pay",
            resource: None,
            method: None,
        }
    }

    fn tells(definitions: &Definitions) -> Vec<Value> {
        let Some(report) = definitions.untold() else { return Vec::new() };
        definitions.told(&report);
        report.definitions.into_iter().map(|seen| seen.definition).collect()
    }

    #[test]
    fn what_differs_from_the_pin_is_distrusted_and_told_once() {
        let (good, evil) =
            (json!({"name": "pay", "description": "Pays."}), json!({"name": "pay", "description": "!"}));
        let (definitions, bank) = (Definitions::default(), name("bank"));
        let pinned = rules(Some((&good, false)));
        definitions.note(&pinned, &bank, std::slice::from_ref(&good));
        assert!(!definitions.differs(&pinned, &pay()) && tells(&definitions).is_empty());
        for expected in [vec![evil.clone()], vec![]] {
            definitions.note(&pinned, &bank, std::slice::from_ref(&evil));
            assert!(definitions.differs(&pinned, &pay()));
            assert_eq!(tells(&definitions), expected);
        }
        // Accepted: the pin is what is served.
        assert!(!definitions.differs(&rules(Some((&evil, false))), &pay()));
    }

    #[test]
    fn the_way_back_is_told_even_if_another_proxy_told_of_the_change() {
        let good = json!({"name": "pay", "description": "Pays."});
        let (definitions, bank) = (Definitions::default(), name("bank"));
        definitions.note(&rules(Some((&good, false))), &bank, std::slice::from_ref(&good));
        assert_eq!(tells(&definitions), [] as [Value; 0]);
        definitions.note(&rules(Some((&good, true))), &bank, std::slice::from_ref(&good));
        assert_eq!(tells(&definitions), [good]);
    }

    #[test]
    fn a_definition_that_has_no_digest_is_like_no_pin() {
        let good = json!({"name": "pay"});
        let huge = json!({"name": "pay", "description": "x".repeat(DEFINITION_BYTES_MAX)});
        let definitions = Definitions::default();
        let pinned = rules(Some((&good, false)));
        definitions.note(&pinned, &name("bank"), &[huge]);
        assert!(definitions.differs(&pinned, &pay()) && tells(&definitions).is_empty());
    }

    #[test]
    fn tools_that_nobody_registered_do_not_crowd_out_those_that_are() {
        let (definitions, bank) = (Definitions::default(), name("bank"));
        let good = json!({"name": "pay"});
        let pinned = rules(Some((&good, false)));
        let many: Vec<Value> = (0..2 * UNREGISTERED_MAX).map(|i| json!({"name": format!("t{i}")})).collect();
        definitions.note(&pinned, &bank, &many);
        definitions.note(&pinned, &bank, &[json!({"name": "pay", "description": "!"})]);
        assert!(definitions.differs(&pinned, &pay()));
        let told: usize =
            std::iter::repeat_with(|| tells(&definitions).len()).take_while(|told| *told > 0).sum();
        assert_eq!(told, UNREGISTERED_MAX + 1);
    }
}
