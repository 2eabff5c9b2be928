//! What tells from outside that an import has written down more of what it did: its journal grows.

/// Looks for a step of a journal, whose beginning is none.
#[derive(Debug)]
pub struct Steps {
    least: usize,
    begun: Option<usize>,
}

impl Steps {
    /// In a journal whose beginning, with what goes with the first step only, is as long as this.
    pub fn from(least: usize) -> Self {
        Self { least, begun: None }
    }

    /// Whether a journal of this length has one more than when it was looked at first.
    pub fn one_more(&mut self, len: usize) -> bool {
        if len < self.least {
            return false;
        }
        // What an earlier run wrote is summed up at first.
        let begun = self.begun.map_or(len, |begun| begun.min(len));
        self.begun = Some(begun);
        len > begun
    }
}

#[cfg(test)]
mod tests {
    use super::Steps;

    #[test]
    fn a_step_is_what_is_longer_than_the_beginning() {
        for (lens, found) in [
            (&[0, 0, 400][..], false),
            (&[400, 430], true),
            (&[700, 430, 460], true),
            (&[700, 430], false),
            (&[400, 400], false),
        ] {
            let mut steps = Steps::from(1);
            let any = lens
                .iter()
                .fold(false, |any, len| any | steps.one_more(*len));
            assert_eq!(any, found, "{lens:?}");
        }
        let mut steps = Steps::from(1000);
        assert!(!steps.one_more(400) && !steps.one_more(430) && !steps.one_more(1430));
        assert!(steps.one_more(1460));
    }
}
