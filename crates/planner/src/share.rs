//! Shares: how services of one priority divide what is theirs.

/// One service's claim on what its priority can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its weight; at least 1.
    pub(crate) weight: u64,
    /// How many containers it wants at most.
    pub(crate) wanted: u64,
    /// What one of its containers takes, in the unit of `available`; at least 1.
    pub(crate) size: u64,
}

/// Divides `available` among the claims, by weight, each at most what it wants: containers for each claim.
///
/// Whoever wants less than its part leaves the rest to the others. What remains after each has its whole
/// containers goes to the largest remainders; of equal ones, to the first. Claims come in the order of names.
pub(crate) fn shares(claims: &[Claim], available: u64) -> Vec<u64> {
    let wanted: u128 = claims.iter().map(|claim| u128::from(claim.wanted) * u128::from(claim.size)).sum();
    if wanted <= u128::from(available) {
        return claims.iter().map(|claim| claim.wanted).collect();
    }
    let mut given: Vec<Option<u64>> = vec![None; claims.len()];
    let mut left = u128::from(available);
    // Settle whoever wants no more than its part, until all that are left want more than theirs.
    loop {
        let open = || (0..claims.len()).filter(|&at| given[at].is_none());
        let weights: u128 = open().map(|at| u128::from(claims[at].weight)).sum();
        let content: Vec<usize> = open()
            .filter(|&at| {
                let claim = claims[at];
                u128::from(claim.wanted) * u128::from(claim.size) * weights <= left * u128::from(claim.weight)
            })
            .collect();
        if content.is_empty() {
            break;
        }
        for at in content {
            given[at] = Some(claims[at].wanted);
            left -= u128::from(claims[at].wanted) * u128::from(claims[at].size);
        }
    }
    let open: Vec<usize> = (0..claims.len()).filter(|&at| given[at].is_none()).collect();
    let weights: u128 = open.iter().map(|&at| u128::from(claims[at].weight)).sum();
    let mut rest = left;
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(open.len());
    for &at in &open {
        let claim = claims[at];
        let size = u128::from(claim.size);
        // The part is `part / weights`; kept as a fraction so that remainders compare exactly.
        let part = left * u128::from(claim.weight);
        let whole = part / (weights * size);
        given[at] = u64::try_from(whole).ok();
        rest -= whole * size;
        // In containers, so that a large request is not favoured for being large.
        remainders.push(((part - whole * weights * size) * 1_000_000 / size, at));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, at) in remainders {
        let size = u128::from(claims[at].size);
        if let Some(count) = given[at].as_mut()
            && size <= rest
            && *count < claims[at].wanted
        {
            *count += 1;
            rest -= size;
        }
    }
    given.into_iter().map(|count| count.unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(of: &[(u64, u64)]) -> Vec<Claim> {
        of.iter().map(|&(weight, wanted)| Claim { weight, wanted, size: 1 }).collect()
    }

    #[test]
    fn whoever_wants_less_leaves_the_rest() {
        assert_eq!(shares(&claims(&[(1, 2), (1, 100), (1, 100)]), 10), [2, 4, 4]);
        assert_eq!(shares(&claims(&[(1, 3), (1, 3)]), 10), [3, 3]);
    }

    #[test]
    fn by_weight_with_largest_remainder_and_ties_by_name() {
        // 9 by 1:2 is 3 and 6; 8 is 2.67 and 5.33: the larger remainder is the first's.
        assert_eq!(shares(&claims(&[(1, 100), (2, 100)]), 9), [3, 6]);
        assert_eq!(shares(&claims(&[(1, 100), (2, 100)]), 8), [3, 5]);
        assert_eq!(shares(&claims(&[(1, 100), (1, 100)]), 3), [2, 1]);
    }

    #[test]
    fn sizes_count() {
        let two = [Claim { weight: 1, wanted: 9, size: 2 }, Claim { weight: 1, wanted: 9, size: 1 }];
        assert_eq!(shares(&two, 9), [2, 5]);
    }

    #[test]
    fn nothing_to_share() {
        assert_eq!(shares(&claims(&[(1, 5), (1, 5)]), 0), [0, 0]);
        assert_eq!(shares(&[], 5), Vec::<u64>::new());
    }
}
