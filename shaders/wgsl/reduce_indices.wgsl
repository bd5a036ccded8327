// The result is where the largest was met.

@group(0) @binding(1) var<storage, read_write> y: array<u32>;

fn store(i: u32, best: Best) {
    y[i] = best.index;
}
