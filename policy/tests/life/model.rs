//! The same call, sent once and again, to proxies that crash; a backend; a person; a tool.
//!
//! A proxy here does, in any order, whatever `life::after` allows: more than the real one does. What is stored
//! survives its crash, the rest does not. A request to consume may arrive late, twice or never, and so may
//! its answer.

use std::collections::BTreeSet;

use oakallow_policy::approval::{self, Answer, Memory, Ran};
use oakallow_policy::audit::EventType;
use oakallow_policy::life::{self, Closing, Stage, Step, Tracked};
use oakallow_policy::wire::ApprovalStatus;
use oakallow_policy::{Permission, PermitReason};
use stateright::{Model, Property};

/// At most so many approvals are created: more add states, not situations.
const APPROVALS_MAX: usize = 2;

/// The product's functions, so that one of them can be exchanged for a wrong one.
#[derive(Clone, Copy)]
pub(crate) struct Transitions {
    pub(crate) life: fn(Stage, Step) -> Option<Stage>,
    pub(crate) tracked: fn(EventType) -> Tracked,
    pub(crate) left_open: fn(EventType) -> Closing,
    pub(crate) approval: fn(ApprovalStatus, approval::Step, bool) -> Option<ApprovalStatus>,
    pub(crate) repeats: fn(ApprovalStatus, bool, Ran) -> bool,
    pub(crate) answer: fn(ApprovalStatus, Memory, bool, Ran) -> Answer,
}

impl Default for Transitions {
    fn default() -> Self {
        Self {
            life: life::after,
            tracked: life::tracked,
            left_open: life::left_open,
            approval: approval::after,
            repeats: approval::repeats,
            answer: approval::answer,
        }
    }
}

/// What is explored.
#[derive(Clone)]
pub(crate) struct System {
    /// The proxy of each call. All are the same call, sent again.
    pub(crate) on: Vec<usize>,
    /// How often each proxy crashes.
    pub(crate) crashes_max: Vec<u8>,
    pub(crate) transitions: Transitions,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    calls: Vec<Call>,
    proxies: Vec<Proxy>,
    approvals: Vec<Approval>,
    /// Requests to consume that were sent: (call, approval). Each may arrive at any time from then on.
    requests: BTreeSet<(usize, usize)>,
    /// Answers that say yes. The same.
    confirmed: BTreeSet<(usize, usize)>,
    /// A person was asked again about what had run, although nothing said that it was meant to run again.
    asked_after_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Call {
    /// In the memory of its proxy; `None`: lost in a crash.
    stage: Option<Stage>,
    /// The approval it waits for.
    asked: Option<usize>,
    /// Sent, and not at the tool yet.
    in_flight: bool,
    ran: bool,
    /// What was decided last, and the permit it was sent with.
    decided: Option<Permission>,
    sent_by: Option<PermitReason>,
    /// On the disk of its proxy: its events, from the intent on.
    events: Vec<EventType>,
    /// The same: what a restart has to close.
    open: Option<EventType>,
    /// So many of its events are at the backend.
    shipped: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Proxy {
    crashes: u8,
    is_down: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Approval {
    status: ApprovalStatus,
    /// Its deadline has passed.
    is_due: bool,
    /// Not long ago.
    is_recent: bool,
    /// A person said yes.
    is_granted: bool,
    consumed_by: Option<usize>,
    /// Kept to the end: what must never be.
    consumed_due: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The proxy takes a step with this call.
    Take(usize, Step),
    /// It asks for an approval; the answer is lost, or not.
    Ask {
        call: usize,
        key_is_new: bool,
        is_answered: bool,
    },
    /// A request to consume arrives.
    Arrive(usize, usize),
    /// The sent call arrives at the tool.
    Run(usize),
    Crash(usize),
    /// A proxy that starts closes one call that was open, or is up again when there is none.
    Recover(usize),
    /// What is stored of a call reaches the backend.
    Ship(usize),
    /// A person, or the caller's withdrawal.
    Settle(usize, approval::Step),
    /// Time passes: until the deadline, or until the approval is no longer remembered.
    Pass(usize),
}

const fn recorded(closing: Closing) -> EventType {
    match closing {
        Closing::Refused => EventType::CallRefused,
        Closing::NotForwarded => EventType::CallNotForwarded,
        Closing::Unknown => EventType::CallUnknown,
        Closing::Answered => EventType::CallCompleted,
    }
}

const STEPS: [Step; 12] = [
    Step::Decide(Permission::Allowed),
    Step::Decide(Permission::RequiresApproval),
    Step::Decide(Permission::Disabled),
    Step::Open,
    Step::Spend,
    Step::Intend(PermitReason::Rule),
    Step::Intend(PermitReason::Approval),
    Step::Send,
    Step::Close(Closing::Refused),
    Step::Close(Closing::NotForwarded),
    Step::Close(Closing::Unknown),
    Step::Close(Closing::Answered),
];

impl Call {
    /// Everything about it is settled and cannot be told apart any more.
    fn is_over(&self) -> bool {
        matches!(self.stage, None | Some(Stage::Closed)) && !self.in_flight && !self.ran
    }

    fn closings(&self) -> Vec<EventType> {
        self.events.iter().copied().filter(|e| life::tracked(*e) == Tracked::Closes).collect()
    }

    /// What the backend knows of it.
    fn known(&self) -> Ran {
        match self.events.iter().take(self.shipped).next_back() {
            None | Some(EventType::CallForwarded) => Ran::Open,
            Some(EventType::CallRefused | EventType::CallNotForwarded) => Ran::NotSent,
            Some(_) => Ran::Sent,
        }
    }

    fn store(&mut self, system: &System, event: EventType) {
        if event != EventType::CallHeld {
            self.events.push(event);
        }
        match (system.transitions.tracked)(event) {
            Tracked::Opens => self.open = Some(event),
            Tracked::Closes => self.open = None,
            Tracked::Passes => {}
        }
    }
}

impl State {
    /// Whether the call that consumed an approval is known to have ended, and how.
    fn known(&self, approval: &Approval) -> Ran {
        approval.consumed_by.map_or(Ran::Open, |by| self.calls[by].known())
    }

    /// Forgets what has no further effect, so that states that cannot be told apart are one.
    fn normalize(&mut self) {
        for (i, call) in self.calls.iter_mut().enumerate() {
            if call.is_over() {
                call.decided = None;
                call.sent_by = None;
                call.asked = None;
            }
            if matches!(call.stage, None | Some(Stage::Closed)) {
                self.confirmed.retain(|(of, _)| *of != i);
            }
        }
    }

    fn take(&mut self, system: &System, call: usize, step: Step) -> Option<()> {
        let stage = self.calls[call].stage?;
        let next = (system.transitions.life)(stage, step)?;
        let asked = self.calls[call].asked;
        match step {
            Step::Decide(permission) => self.calls[call].decided = Some(permission),
            Step::Open => {
                self.calls[call].open = Some(EventType::ApprovalConsumed);
                self.requests.insert((call, asked?));
            }
            Step::Spend => {
                // Only what the backend has said.
                if !self.confirmed.contains(&(call, asked?)) {
                    return None;
                }
            }
            Step::Intend(reason) => {
                self.calls[call].store(system, EventType::CallForwarded);
                self.calls[call].sent_by = Some(reason);
            }
            Step::Send => self.calls[call].in_flight = true,
            Step::Close(Closing::Answered) if !self.calls[call].ran => return None,
            Step::Close(closing) => self.calls[call].store(system, recorded(closing)),
        }
        self.calls[call].stage = Some(next);
        Some(())
    }

    fn settle(&mut self, system: &System, of: usize, step: approval::Step) -> bool {
        let approval = &mut self.approvals[of];
        let Some(next) = (system.transitions.approval)(approval.status, step, approval.is_due) else {
            return false;
        };
        approval.status = next;
        match step {
            approval::Step::Approve => approval.is_granted = true,
            approval::Step::Consume => approval.consumed_due |= approval.is_due,
            _ => {}
        }
        true
    }

    /// The backend is asked about a call.
    fn ask(&mut self, system: &System, memory: Memory) -> Option<(usize, Answer)> {
        if let Some(newest) = self.approvals.len().checked_sub(1) {
            self.settle(system, newest, approval::Step::Expire);
            let approval = self.approvals[newest].clone();
            let ran = self.known(&approval);
            let answer = (system.transitions.answer)(approval.status, memory, approval.is_recent, ran);
            if answer != Answer::Anew {
                return Some((newest, answer));
            }
            let ran = approval.consumed_by.is_some_and(|by| self.calls[by].ran || self.calls[by].in_flight);
            self.asked_after_run |= ran && memory == Memory::Recent && approval.is_recent;
        }
        if self.approvals.len() == APPROVALS_MAX {
            return None;
        }
        self.approvals.push(Approval {
            status: ApprovalStatus::Pending,
            is_due: false,
            is_recent: true,
            is_granted: false,
            consumed_by: None,
            consumed_due: false,
        });
        Some((self.approvals.len() - 1, Answer::Join))
    }

    fn arrive(&mut self, system: &System, call: usize, of: usize) {
        if self.settle(system, of, approval::Step::Consume) {
            self.approvals[of].consumed_by = Some(call);
        } else {
            let approval = &self.approvals[of];
            let ran = self.known(approval);
            let same = approval.consumed_by == Some(call);
            if !(system.transitions.repeats)(approval.status, same, ran) {
                return;
            }
        }
        self.confirmed.insert((call, of));
    }

    fn recover(&mut self, system: &System, proxy: usize) {
        let mut here = self.calls.iter_mut().zip(&system.on).filter(|(_, on)| **on == proxy);
        match here.find_map(|(call, _)| call.open.map(|event| (call, event))) {
            Some((call, event)) => {
                call.store(system, recorded((system.transitions.left_open)(event)));
                call.open = None;
            }
            None => self.proxies[proxy].is_down = false,
        }
    }
}

type Holds = fn(&System, &State) -> bool;

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let call = Call { stage: Some(Stage::Arrived), ..Call::default() };
        vec![State {
            calls: vec![call; self.on.len()],
            proxies: vec![Proxy::default(); self.crashes_max.len()],
            approvals: Vec::new(),
            requests: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            asked_after_run: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (call, on) in self.on.iter().enumerate() {
            if state.calls[call].in_flight {
                actions.push(Action::Run(call));
            }
            if state.calls[call].shipped < state.calls[call].events.len() {
                actions.push(Action::Ship(call));
            }
            if state.proxies[*on].is_down {
                continue;
            }
            actions.extend(STEPS.map(|step| Action::Take(call, step)));
            if state.calls[call].stage == Some(Stage::Decided(Permission::RequiresApproval))
                && state.calls[call].asked.is_none()
            {
                for (key_is_new, is_answered) in [(false, true), (true, true), (false, false)] {
                    actions.push(Action::Ask { call, key_is_new, is_answered });
                }
            }
        }
        actions.extend(state.requests.iter().map(|(call, of)| Action::Arrive(*call, *of)));
        for (proxy, at) in state.proxies.iter().enumerate() {
            if at.is_down {
                actions.push(Action::Recover(proxy));
            } else if at.crashes < self.crashes_max[proxy] {
                actions.push(Action::Crash(proxy));
            }
        }
        for of in 0..state.approvals.len() {
            // Consuming is for proxies, by [`Action::Arrive`]; a withdrawal is to the calls what a denial is.
            for step in [approval::Step::Approve, approval::Step::Deny, approval::Step::Expire] {
                actions.push(Action::Settle(of, step));
            }
            actions.push(Action::Pass(of));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Take(call, step) => state.take(self, call, step)?,
            Action::Ask { call, key_is_new, is_answered } => {
                let memory = if key_is_new { Memory::Never } else { Memory::Recent };
                let (of, answer) = state.ask(self, memory)?;
                match answer {
                    _ if !is_answered => {}
                    Answer::AlreadyExecuted => state.take(self, call, Step::Close(Closing::Refused))?,
                    Answer::Join | Answer::Anew => {
                        state.calls[call].asked = Some(of);
                        state.calls[call].store(self, EventType::CallHeld);
                    }
                }
            }
            Action::Arrive(call, of) => state.arrive(self, call, of),
            Action::Run(call) => {
                state.calls[call].in_flight = false;
                state.calls[call].ran = true;
            }
            Action::Crash(proxy) => {
                state.proxies[proxy].crashes += 1;
                state.proxies[proxy].is_down = true;
                for (call, _) in self.on.iter().enumerate().filter(|(_, on)| **on == proxy) {
                    // What has not arrived yet arrives after the restart, as another call would.
                    if state.calls[call].stage != Some(Stage::Arrived) {
                        state.calls[call].stage = None;
                    }
                }
            }
            Action::Recover(proxy) => state.recover(self, proxy),
            Action::Ship(call) => state.calls[call].shipped = state.calls[call].events.len(),
            Action::Settle(of, step) => {
                if !state.settle(self, of, step) {
                    return None;
                }
            }
            Action::Pass(of) => {
                let approval = &mut state.approvals[of];
                match approval.status {
                    ApprovalStatus::Pending | ApprovalStatus::Approved => approval.is_due = true,
                    ApprovalStatus::Denied | ApprovalStatus::Consumed => approval.is_recent = false,
                    ApprovalStatus::Expired | ApprovalStatus::Cancelled => {}
                }
            }
        }
        state.normalize();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always: [(&str, Holds); 7] = [
            ("what is sent was permitted", |_, s| {
                s.calls.iter().filter(|c| c.ran || c.in_flight).all(|c| match c.sent_by {
                    Some(PermitReason::Rule) => c.decided == Some(Permission::Allowed),
                    Some(PermitReason::Approval) => c.decided == Some(Permission::RequiresApproval),
                    _ => false,
                })
            }),
            ("what is sent has a stored intent", |_, s| {
                let sent = s.calls.iter().filter(|c| c.ran || c.in_flight);
                sent.into_iter().all(|c| c.events.contains(&EventType::CallForwarded))
            }),
            ("an approval is granted by a person, in time, and runs at most one call", |_, s| {
                let by_approval =
                    |c: &Call| c.sent_by == Some(PermitReason::Approval) && (c.ran || c.in_flight);
                let of = |approval: usize| {
                    s.calls.iter().filter(|c| by_approval(c) && c.asked == Some(approval)).count()
                };
                s.approvals.iter().enumerate().all(|(i, a)| {
                    !a.consumed_due
                        && (a.consumed_by.is_none() || a.is_granted)
                        && of(i) <= usize::from(a.consumed_by.is_some())
                })
            }),
            ("what is said not to have run has not", |_, s| {
                s.calls.iter().filter(|c| c.ran || c.in_flight).all(|c| {
                    let closings = c.closings();
                    !closings.contains(&EventType::CallRefused)
                        && !closings.contains(&EventType::CallNotForwarded)
                })
            }),
            ("a call has at most one end", |_, s| s.calls.iter().all(|c| c.closings().len() <= 1)),
            ("a restart leaves no intent without an outcome", |m, s| {
                let lost = |(c, on): &(&Call, &usize)| c.stage.is_none() && !s.proxies[**on].is_down;
                let mut lost = s.calls.iter().zip(&m.on).filter(lost);
                lost.all(|(c, _)| c.events.is_empty() || c.closings().len() == 1)
            }),
            ("nobody is asked again about what has just run", |_, s| !s.asked_after_run),
        ];
        let sometimes: [(&str, Holds); 4] = [
            ("an approved call runs and is answered", |_, s| {
                s.calls[0].sent_by == Some(PermitReason::Approval)
                    && s.calls[0].closings() == [EventType::CallCompleted]
            }),
            ("a retry runs after a crash", |_, s| {
                s.calls[0].stage.is_none() && !s.calls[0].ran && s.calls[1].ran
            }),
            ("a retry joins and runs", |_, s| {
                s.approvals.len() == 1 && s.calls[0].asked.is_some() && s.calls[1].ran
            }),
            ("two grants run twice", |_, s| {
                s.approvals.len() == 2
                    && s.calls.iter().filter(|c| c.ran && c.sent_by == Some(PermitReason::Approval)).count()
                        == 2
            }),
        ];
        let always = always.map(|(name, holds)| Property::always(name, holds));
        let sometimes = sometimes.map(|(name, holds)| Property::sometimes(name, holds));
        always.into_iter().chain(sometimes).collect()
    }
}
