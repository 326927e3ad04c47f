//! Weighted choice in constant time, by the alias method.

/// One column of a table, belonging to its index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The index's own share of the column, out of 2^32.
    own: u64,
    /// The index that has the remaining share.
    alias: u32,
}

const WHOLE: u64 = 1 << 32;

/// A table that maps a uniform random number to an index with the given weights, at least one of
/// which is positive.
///
/// A. J. Walker, "An efficient method for generating discrete random variables with general
/// distributions", 1977, in the construction of M. D. Vose, 1991: at most two indices share a column,
/// so that a draw costs one multiplication and one comparison, whatever the number of indices.
pub(super) fn table(weights: &[u32]) -> Vec<Column> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    // Scaled so that the mean column is exactly `total` high, in integers: nothing is rounded before
    // the shares are stored.
    let mut height: Vec<u128> =
        weights.iter().map(|&weight| u128::from(weight) * weights.len() as u128).collect();
    let mut columns: Vec<Column> =
        (0u32..).take(weights.len()).map(|alias| Column { own: WHOLE, alias }).collect();
    let (mut low, mut high): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&index| height[index] < total);
    while let (Some(poor), Some(&rich)) = (low.pop(), high.last()) {
        let own = u64::try_from(height[poor] * u128::from(WHOLE) / total)
            .expect("a column lower than the mean has a share below one");
        columns[poor] = Column { own, alias: columns[rich].alias };
        height[rich] -= total - height[poor];
        if height[rich] < total {
            high.pop();
            low.push(rich);
        }
    }
    columns
}

/// The index in `table` that belongs to `draw`, a uniform random number.
pub(super) fn pick(table: &[Column], draw: u64) -> usize {
    let column = ((draw >> 32) * table.len() as u64) >> 32;
    let column = usize::try_from(column).expect("an index below the number of columns");
    let Column { own, alias } = table[column];
    if draw & (WHOLE - 1) < own { column } else { alias as usize }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The exact probability of each index, computed from the table.
    fn masses(table: &[Column]) -> Vec<f64> {
        let mut masses = vec![0.0; table.len()];
        for (index, column) in table.iter().enumerate() {
            let own = column.own as f64 / WHOLE as f64;
            masses[index] += own / table.len() as f64;
            masses[column.alias as usize] += (1.0 - own) / table.len() as f64;
        }
        masses
    }

    proptest! {
        #[test]
        fn every_index_has_the_share_of_its_weight(
            weights in prop::collection::vec(0u32..10_000, 1..40),
        ) {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            prop_assume!(total > 0);
            let table = table(&weights);
            for (mass, weight) in masses(&table).into_iter().zip(weights) {
                prop_assert!((mass - f64::from(weight) / total as f64).abs() < 1e-6);
            }
        }

        #[test]
        fn every_draw_is_an_index(draw in any::<u64>(), len in 1usize..200) {
            prop_assert!(pick(&table(&vec![u32::MAX; len]), draw) < len);
        }
    }
}
