//! Medians, their spread, and how sure a ratio of two of them is.

use super::random::Random;

/// How often the rounds are drawn again for an interval.
const RESAMPLES: usize = 10_000;

/// The middle value; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(middle - 1)?, upper))
}

/// Median of the distances from the median.
pub(super) fn mad(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    median(&distances)
}

pub(super) fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// A ratio of medians and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Ratio {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// `median(above) / median(below)`, the interval by bootstrap over rounds: both lists are in the
/// order of the rounds, and a round is drawn with both its values, so that what slowed down the whole
/// machine for a while does not count as a difference.
pub(super) fn ratio(above: &[f64], below: &[f64], seed: u64) -> Option<Ratio> {
    if above.len() != below.len() {
        return None;
    }
    let value = median(above)? / median(below)?;
    let mut random = Random::new(seed);
    interval(value, || {
        let (one, other): (Vec<f64>, Vec<f64>) = (0..above.len())
            .map(|_| {
                let round = random.below(above.len());
                (above[round], below[round])
            })
            .unzip();
        Some(median(&one)? / median(&other)?)
    })
}

/// A contender's times in one set of results, and somebody else's in the same rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rounds {
    pub(super) times: Vec<f64>,
    /// As many, or none.
    pub(super) beside: Vec<f64>,
}

impl Rounds {
    /// The median, over that of the others where they are there: what was drawn, or everything.
    fn centre(&self, drawn: Option<&[usize]>) -> Option<f64> {
        let of = |values: &[f64]| match drawn {
            Some(drawn) => {
                let values: Vec<f64> = drawn.iter().map(|round| values[*round]).collect();
                median(&values)
            }
            None => median(values),
        };
        let times = of(&self.times)?;
        if self.beside.is_empty() {
            return Some(times);
        }
        Some(times / of(&self.beside)?)
    }
}

/// How one set's times relate to another's: `after` over `before`, each resampled by its own rounds,
/// since rounds of two runs have nothing in common.
pub(super) fn change(before: &Rounds, after: &Rounds, seed: u64) -> Option<Ratio> {
    let paired =
        |rounds: &Rounds| rounds.beside.is_empty() || rounds.beside.len() == rounds.times.len();
    if !paired(before) || !paired(after) {
        return None;
    }
    let value = after.centre(None)? / before.centre(None)?;
    let mut random = Random::new(seed);
    interval(value, || {
        let mut draw = |rounds: &Rounds| {
            let count = rounds.times.len();
            let drawn: Vec<usize> = (0..count).map(|_| random.below(count)).collect();
            rounds.centre(Some(&drawn))
        };
        Some(draw(after)? / draw(before)?)
    })
}

/// The middle 95 % of what `resample` gives.
fn interval(value: f64, mut resample: impl FnMut() -> Option<f64>) -> Option<Ratio> {
    let mut ratios = (0..RESAMPLES)
        .map(|_| resample())
        .collect::<Option<Vec<f64>>>()?;
    ratios.sort_by(f64::total_cmp);
    Some(Ratio {
        value,
        low: ratios[RESAMPLES * 25 / 1000],
        high: ratios[RESAMPLES * 975 / 1000],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        near(median(&[3.0, 1.0, 2.0]), 2.0);
        near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_spread() {
        near(mad(&[1.0, 1.1, 0.9, 50.0, 1.0]), 0.1);
        near(least(&[1.0, 0.9, 50.0]), 0.9);
    }

    #[test]
    fn equal_rounds_leave_no_doubt_about_the_ratio() {
        let ratio = ratio(&[4.0; 11], &[2.0; 11], 1).unwrap();
        near(Some(ratio.value), 2.0);
        near(Some(ratio.low), 2.0);
        near(Some(ratio.high), 2.0);
    }

    #[test]
    fn a_wider_spread_widens_the_interval_around_the_ratio() {
        let below = [1.0; 11];
        let tight: Vec<f64> = (0..11).map(|round| 2.0 + 0.01 * f64::from(round)).collect();
        let loose: Vec<f64> = (0..11).map(|round| 2.0 + 0.1 * f64::from(round)).collect();
        let tight = ratio(&tight, &below, 1).unwrap();
        let loose = ratio(&loose, &below, 1).unwrap();
        assert!(tight.low <= tight.value && tight.value <= tight.high);
        assert!(loose.high - loose.low > tight.high - tight.low);
    }

    #[test]
    fn what_slows_both_in_the_same_rounds_cancels_out() {
        // Pairs are drawn together: in every resample both medians are of the same rounds.
        let below: Vec<f64> = (1..=11).map(f64::from).collect();
        let above: Vec<f64> = below.iter().map(|value| value * 3.0).collect();
        let ratio = ratio(&above, &below, 5).unwrap();
        near(Some(ratio.low), 3.0);
        near(Some(ratio.high), 3.0);
    }

    #[test]
    fn a_change_of_the_machine_is_taken_out_by_those_who_ran_beside() {
        let rounds = |slower: f64| {
            let times: Vec<f64> = (0..11)
                .map(|n| slower * (2.0 + 0.01 * f64::from(n)))
                .collect();
            Rounds {
                beside: times.iter().map(|time| time * 4.0).collect(),
                times,
            }
        };
        let (before, after) = (rounds(1.0), rounds(1.5));
        let alone = |rounds: &Rounds| Rounds {
            times: rounds.times.clone(),
            beside: Vec::new(),
        };
        let raw = change(&alone(&before), &alone(&after), 1).unwrap();
        assert!(raw.low > 1.4 && raw.high < 1.6, "{raw:?}");
        let corrected = change(&before, &after, 1).unwrap();
        near(Some(corrected.low), 1.0);
        near(Some(corrected.high), 1.0);
        assert_eq!(change(&before, &Rounds::default(), 1), None);
    }

    #[test]
    fn rounds_that_do_not_pair_have_no_ratio() {
        assert_eq!(ratio(&[1.0, 2.0], &[1.0], 1), None);
        assert_eq!(ratio(&[], &[], 1), None);
    }
}
