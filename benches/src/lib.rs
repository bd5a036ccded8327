//! What measures wgtune: criterion benches over the list of ops (`benches/ops.rs`), scripts that run it beside PyTorch
//! (`side_by_side.py`, `pytorch.py`), and `peers/`, a workspace of its own that runs it beside burn and candle:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- --help`.
