// The result is what was accumulated.

@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn store(i: u32, best: Best) {
    y[i] = best.value;
}
