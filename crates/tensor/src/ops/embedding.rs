//! Embeddings: rows of a table.

use crate::Tensor;
use crate::cpu::layout;
use crate::tape::record;

/// Rows `ids` of `table` (V, C) → (ids.len(), C).
///
/// # Panics
/// If the table is no matrix, or an id is V or more.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Tensor {
    let &[rows, _] = table.shape() else {
        panic!("embedding: shape of the table: expected (V, C), found {:?}", table.shape())
    };
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        panic!("embedding: an id: expected less than {rows}, found {id}")
    }
    let y = layout::take_rows(table, ids);
    let ids = ids.to_vec();
    record(y, &[Some(table)], move |dy| vec![Some(layout::add_rows(dy, &ids, rows))])
}
