//! What measures wgtune: criterion benches over the list of ops (`benches/ops.rs`), and scripts that run it beside PyTorch
//! (`side_by_side.py`, `pytorch.py`).
