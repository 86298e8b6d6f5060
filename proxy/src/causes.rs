//! An error with all that led to it: what an operator has to do stands in the last cause, and where in the first.

use std::error::Error;
use std::fmt;

/// Shows the whole chain, from the outermost to the root.
pub(crate) struct Causes<'e>(pub(crate) &'e (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some repeat their cause in their own text.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<Said>>);

    #[test]
    fn each_cause_is_said_once() {
        let root = Said("no such file", None);
        let repeated = Said("reading: no such file", Some(Box::new(root)));
        let whole = Said("no keys", Some(Box::new(repeated)));
        assert_eq!(Causes(&whole).to_string(), "no keys: reading: no such file");
        assert_eq!(Causes(&Said("alone", None)).to_string(), "alone");
    }
}
