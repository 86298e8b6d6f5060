//! Files that are followed: looked at every so often, and at once when SIGHUP asks. By their content: mounted files
//! (a ConfigMap, a Secret) are exchanged behind links, where neither times nor notifications can be relied upon.
//!
//! Here is when to look, and whether what is seen is news; what is read and what becomes of it is for others.

use std::time::Duration;

use crate::hangup::Hangup;

/// Why to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is time.
    Due,
    /// Somebody asks for it.
    Asked,
}

/// When to look.
pub struct Watch {
    every: Duration,
    hangup: Hangup,
}

impl Watch {
    /// From now on, this often; `what` is what is looked at.
    #[must_use]
    pub fn new(what: &str, every: Duration) -> Self {
        Self { every, hangup: Hangup::listen(what) }
    }

    /// Resolves when it is time to look.
    pub async fn next(&mut self) -> Look {
        tokio::select! {
            () = self.hangup.asked() => Look::Asked,
            () = tokio::time::sleep(self.every) => Look::Due,
        }
    }
}

/// What was seen.
pub struct Seen<T> {
    last: Option<T>,
    taken: Option<T>,
    settles: bool,
}

impl<T: Clone + PartialEq> Seen<T> {
    /// Nothing yet. A change has to be seen twice: such files are not written in one step.
    #[must_use]
    pub fn settling() -> Self {
        Self { last: None, taken: None, settles: true }
    }

    /// This has been taken already. A change is news at once: half of it is refused, and looked at again.
    #[must_use]
    pub fn of(taken: T) -> Self {
        Self { last: None, taken: Some(taken), settles: false }
    }

    /// Whether nothing was taken so far.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.taken.is_none()
    }

    /// Whether this is to be taken now: it has changed since, or somebody asks.
    pub fn is_news(&mut self, now: &T, look: Look) -> bool {
        let settled = !self.settles || self.last.as_ref() == Some(now);
        self.last = Some(now.clone());
        let news = look == Look::Asked || (settled && self.taken.as_ref() != Some(now));
        if news {
            self.taken = Some(now.clone());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settles_is_news_when_it_has_been_seen_twice_and_once() {
        let mut seen = Seen::settling();
        let text = |text: &str| Ok(text.to_owned());
        let looks =
            [("a", true), ("a", false), ("half", false), ("whole", false), ("whole", true), ("whole", false)];
        assert!(!seen.is_news(&text("a"), Look::Due), "seen once");
        for (content, news) in looks {
            assert_eq!(seen.is_news(&text(content), Look::Due), news, "{content}");
        }
        assert!(seen.is_news(&text("whole"), Look::Asked), "asked for");
        assert!(!seen.is_news(&Err("gone".to_owned()), Look::Due));
        assert!(seen.is_news(&Err("gone".to_owned()), Look::Due), "a file that is gone is news as well");
    }

    #[test]
    fn what_does_not_settle_is_news_at_once_and_once() {
        let mut seen = Seen::of("a");
        for (content, look, news) in [
            ("a", Look::Due, false),
            ("b", Look::Due, true),
            ("b", Look::Due, false),
            ("b", Look::Asked, true),
            ("a", Look::Due, true),
        ] {
            assert_eq!(seen.is_news(&content, look), news, "{content} {look:?}");
        }
    }
}
