//! Embeddings: rows of a table.

use crate::backend::Move;
use crate::tape::record;
use crate::tensor::Tensor;

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
    let y = table.kernels().moved(Move::TakeRows { ids }, &[table]);
    let ids = ids.to_vec();
    record(y, &[table.node()], move |dy| {
        vec![Some(dy.kernels().moved(Move::AddRows { ids: &ids, rows }, &[dy]))]
    })
}
