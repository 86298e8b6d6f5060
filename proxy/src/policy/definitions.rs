//! The definitions of tools, as their tool servers list them: held against the pins, and told to the backend.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oakallow_policy::canonical::hex;
use oakallow_policy::id::Name;
use oakallow_policy::pin::{self, DefinitionDigest, TEXT_BYTES_MAX};
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

struct Seen {
    digest: DefinitionDigest,
    registered: bool,
    /// What it is held against: the pin, or until there is one, what this proxy saw first.
    pin: DefinitionDigest,
    /// What the backend is still to be told.
    untold: Option<SeenDefinition>,
}

impl Seen {
    /// What it is, where that is not what is pinned.
    fn other(&self, pinned: Option<DefinitionDigest>) -> Option<DefinitionDigest> {
        let counts = pinned.is_none_or(|pinned| self.pin == pinned);
        (counts && self.digest != self.pin).then_some(self.digest)
    }
}

/// By tool server, then by tool.
type All = HashMap<Name, HashMap<Name, Seen>>;

/// What one list says of a tool. A tool that is described in several ways is none of them.
#[derive(Default)]
struct Said<'l> {
    digests: HashSet<DefinitionDigest>,
    definitions: Vec<&'l Value>,
}

impl Said<'_> {
    fn digest(&self) -> DefinitionDigest {
        match self.definitions.as_slice() {
            [_] => self.digests.iter().next().copied().unwrap_or_default(),
            several => pin::digest(&several.iter().copied().cloned().collect()),
        }
    }

    fn text(&self) -> String {
        match self.definitions.as_slice() {
            [one] => one.to_string(),
            several => Value::from_iter(several.iter().copied().cloned()).to_string(),
        }
    }
}

/// What this proxy saw.
#[derive(Default)]
pub struct Definitions {
    seen: Mutex<All>,
    news: Notify,
}

impl Definitions {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the tools of a list, before anything is left out of it.
    pub fn note(&self, rules: &RuleSet, audience: &Name, tools: &[Value]) {
        let mut listed: HashMap<Name, Said<'_>> = HashMap::new();
        for definition in tools {
            let name = definition.get("name").and_then(Value::as_str).and_then(|name| Name::new(name).ok());
            let Some(name) = name else { continue };
            let said = listed.entry(name).or_default();
            if said.digests.insert(pin::digest(definition)) {
                said.definitions.push(definition);
            }
        }
        // Decisions wait for the lock: what takes time is done before.
        let listed: Vec<_> = listed.into_iter().map(|(name, said)| (name, said.digest(), said)).collect();
        let mut seen = self.lock();
        let mut unregistered =
            seen.values().flat_map(HashMap::values).filter(|seen| !seen.registered).count();
        let of_audience = seen.entry(audience.clone()).or_default();
        let mut news = false;
        for (name, digest, said) in listed {
            let registered = rules.tool(&name, audience).is_some();
            let before = of_audience.get(&name);
            if before.is_none() && !registered {
                if unregistered >= UNREGISTERED_MAX {
                    continue;
                }
                unregistered += 1;
            }
            let known = rules.pin(&name, audience);
            let same = before.filter(|before| before.digest == digest);
            // Told again as long as the backend does not know it: of a registered tool the bundle says so.
            let untold = match (known, same) {
                (Some((pinned, served)), _) if served.unwrap_or(pinned) == &digest => None,
                (None, Some(same)) if !registered => same.untold.clone(),
                _ => Some(told(&name, digest, said.text())),
            };
            news |= untold.is_some();
            let pin = known.map(|(pinned, _)| *pinned).or(before.map(|before| before.pin)).unwrap_or(digest);
            of_audience.insert(name, Seen { digest, registered, pin, untold });
        }
        drop(seen);
        if news {
            self.news.notify_one();
        }
    }

    /// What the tool of a call was last listed as, where that is not what is pinned. What was seen before the
    /// pin was changed counts no more: whoever changed it looked at what is served.
    pub(super) fn other(&self, rules: &RuleSet, call: &Call<'_>) -> Option<DefinitionDigest> {
        let pinned = match rules.pin(call.tool, call.audience) {
            Some((pinned, _)) => Some(*pinned),
            // The first sight is on its way to the backend.
            None => rules.tool(call.tool, call.audience).map(|_| None)?,
        };
        let seen = self.lock();
        seen.get(call.audience)?.get(call.tool)?.other(pinned)
    }

    /// How many registered tools are listed otherwise than they are pinned.
    #[must_use]
    pub fn changed(&self, rules: &RuleSet) -> usize {
        let seen = self.lock();
        let all =
            seen.iter().flat_map(|(audience, tools)| tools.iter().map(move |(tool, s)| (audience, tool, s)));
        let registered = all.filter(|(audience, tool, _)| rules.tool(tool, audience).is_some());
        let pin = |audience, tool| rules.pin(tool, audience).map(|(pinned, _)| *pinned);
        registered.filter(|(audience, tool, seen)| seen.other(pin(audience, tool)).is_some()).count()
    }

    /// Waits until there is something to tell.
    pub async fn wait(&self) {
        self.news.notified().await;
    }

    /// What the backend is to be told, as much as goes into one request; `None` when there is nothing.
    pub fn untold(&self) -> Option<SeenDefinitions> {
        let seen = self.lock();
        let untold = |tools: &HashMap<Name, Seen>| tools.values().any(|seen| seen.untold.is_some());
        let (audience, tools) = seen.iter().find(|(_, tools)| untold(tools))?;
        let mut report = SeenDefinitions { audience: audience.clone(), definitions: Vec::new() };
        let mut bytes = 0;
        for definition in tools.values().filter_map(|seen| seen.untold.as_ref()).take(REPORT_MAX) {
            bytes += definition.definition.as_ref().map_or(0, String::len);
            if bytes > REPORT_BYTES_MAX {
                break;
            }
            report.definitions.push(definition.clone());
        }
        Some(report)
    }

    /// The backend was told, or will not hear it.
    pub fn told(&self, report: &SeenDefinitions) {
        let mut seen = self.lock();
        for definition in &report.definitions {
            let entry = seen.get_mut(&report.audience).and_then(|tools| tools.get_mut(&definition.name));
            // It may be another one again by now.
            if let Some(entry) = entry.filter(|entry| entry.untold.as_ref() == Some(definition)) {
                entry.untold = None;
            }
        }
    }
}

fn told(name: &Name, digest: DefinitionDigest, text: String) -> SeenDefinition {
    let small = text.len() <= TEXT_BYTES_MAX;
    SeenDefinition { name: name.clone(), sha256: hex(&digest), definition: small.then_some(text) }
}

#[cfg(test)]
mod tests {
    use oakallow_policy::ruleset::OrgPolicy;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// With the pin of `pay`, and what is served if the backend knows that to be another one.
    fn rules(pinned: Option<(&Value, Option<&Value>)>) -> RuleSet {
        let sha256 = |definition: &Value| hex(&pin::digest(definition));
        let pins = pinned.map(|(definition, served)| {
            let mut pin = json!({"tool": "pay", "audience": "bank", "sha256": sha256(definition)});
            if let Some(served) = served {
                pin["served_sha256"] = sha256(served).into();
            }
            pin
        });
        let policy =
            json!({"org": "demo", "tools": [{"name": "pay", "audience": "bank"}], "pins": pins.as_slice()});
        RuleSet::compile(&serde_json::from_value::<OrgPolicy>(policy).unwrap(), 1).unwrap()
    }

    fn differs(definitions: &Definitions, rules: &RuleSet) -> bool {
        let call = Call {
            org: "demo",
            tenant: None,
            principal: "a",
            audience: "bank",
            tool: "pay",
            resource: None,
            method: None,
        };
        definitions.other(rules, &call).is_some()
    }

    fn sees(definitions: &Definitions, rules: &RuleSet, listed: &[Value]) {
        definitions.note(rules, &name("bank"), listed);
    }

    fn tells(definitions: &Definitions) -> Vec<Value> {
        let Some(report) = definitions.untold() else { return Vec::new() };
        definitions.told(&report);
        let text = |seen: SeenDefinition| {
            seen.definition.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
        };
        report.definitions.into_iter().map(text).collect()
    }

    fn good() -> Value {
        json!({"name": "pay", "description": "Pays."})
    }

    fn evil() -> Value {
        json!({"name": "pay", "description": "!"})
    }

    #[test]
    fn what_differs_from_the_pin_is_distrusted_and_told_until_the_backend_knows() {
        let definitions = Definitions::default();
        let pinned = rules(Some((&good(), None)));
        sees(&definitions, &pinned, &[good()]);
        assert!(!differs(&definitions, &pinned) && tells(&definitions).is_empty());
        for _ in 0..2 {
            sees(&definitions, &pinned, &[evil()]);
            assert!(differs(&definitions, &pinned));
            assert_eq!(tells(&definitions), [evil()]);
        }
        let known = rules(Some((&good(), Some(&evil()))));
        sees(&definitions, &known, &[evil()]);
        assert!(differs(&definitions, &known) && tells(&definitions).is_empty());
    }

    #[test]
    fn what_was_seen_before_a_pin_was_changed_counts_no_more() {
        let definitions = Definitions::default();
        sees(&definitions, &rules(Some((&good(), None))), &[good()]);
        // Another proxy saw the other one, and somebody accepted it.
        assert!(!differs(&definitions, &rules(Some((&evil(), None)))));
        sees(&definitions, &rules(Some((&evil(), None))), &[good()]);
        assert!(differs(&definitions, &rules(Some((&evil(), None)))));
    }

    #[test]
    fn the_way_back_is_told_even_if_another_proxy_told_of_the_change() {
        let definitions = Definitions::default();
        sees(&definitions, &rules(Some((&good(), None))), &[good()]);
        assert_eq!(tells(&definitions), [] as [Value; 0]);
        sees(&definitions, &rules(Some((&good(), Some(&evil())))), &[good()]);
        assert_eq!(tells(&definitions), [good()]);
    }

    #[test]
    fn what_changes_before_the_first_sight_is_pinned_is_distrusted_too() {
        let definitions = Definitions::default();
        sees(&definitions, &rules(None), &[good()]);
        assert!(!differs(&definitions, &rules(None)));
        sees(&definitions, &rules(None), &[evil()]);
        assert!(differs(&definitions, &rules(None)));
        assert!(differs(&definitions, &rules(Some((&good(), None)))));
    }

    #[test]
    fn a_registered_tool_without_a_pin_is_told_again() {
        let definitions = Definitions::default();
        for _ in 0..2 {
            sees(&definitions, &rules(None), &[good()]);
            assert_eq!(tells(&definitions), [good()]);
        }
    }

    #[test]
    fn a_tool_that_is_listed_twice_is_what_neither_says() {
        let pinned = rules(Some((&good(), None)));
        for listed in [[evil(), good()], [good(), evil()]] {
            let definitions = Definitions::default();
            sees(&definitions, &pinned, &listed);
            assert!(differs(&definitions, &pinned));
            assert_eq!(tells(&definitions), [json!(listed)]);
        }
        let definitions = Definitions::default();
        sees(&definitions, &pinned, &[good(), good()]);
        assert!(!differs(&definitions, &pinned));
    }

    #[test]
    fn a_large_definition_is_told_by_its_digest() {
        let huge = json!({"name": "pay", "description": "x".repeat(TEXT_BYTES_MAX)});
        let definitions = Definitions::default();
        let pinned = rules(Some((&good(), None)));
        sees(&definitions, &pinned, &[huge]);
        assert!(differs(&definitions, &pinned));
        assert_eq!(tells(&definitions), [Value::Null]);
    }

    #[test]
    fn tools_that_nobody_registered_do_not_crowd_out_those_that_are() {
        let definitions = Definitions::default();
        let pinned = rules(Some((&good(), None)));
        let many: Vec<Value> = (0..2 * UNREGISTERED_MAX).map(|i| json!({"name": format!("t{i}")})).collect();
        sees(&definitions, &pinned, &many);
        sees(&definitions, &pinned, &[evil()]);
        assert!(differs(&definitions, &pinned));
        let told: usize =
            std::iter::repeat_with(|| tells(&definitions).len()).take_while(|told| *told > 0).sum();
        assert_eq!(told, UNREGISTERED_MAX + 1);
    }
}
