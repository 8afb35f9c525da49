//! Embeddings: rows of a table.

use crate::Tensor;
use crate::cpu::layout;
use crate::tape::record;

/// Rows `ids` of `table` (V, C) → (ids.len(), C). Panics on an id of V or more.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Tensor {
    let &[rows, _] = table.shape() else { panic!("a table is (V, C), found {:?}", table.shape()) };
    assert!(ids.iter().all(|&id| (id as usize) < rows), "an id of a table of {rows} rows");
    let y = layout::take_rows(table, ids);
    let ids = ids.to_vec();
    record(y, &[Some(table)], move |dy| vec![Some(layout::add_rows(dy, &ids, rows))])
}
