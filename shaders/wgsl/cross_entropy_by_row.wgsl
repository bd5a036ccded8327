// The softmax of one row by one invocation. Whoever imports this binds `logits`, `targets`, `statistics` and `params`.

struct Params { rows: u32, width: u32, first: u32 }

const IGNORE = 0xffffffffu;

struct Softmax { largest: f32, sum: f32, label: u32 }

// Writes the row's loss, entropy and correctness. A row that does not count writes zeros and has the label IGNORE.
fn row_softmax(row: u32) -> Softmax {
    let given = targets[params.first + row];
    if given == IGNORE {
        write_statistics(row, 0.0, 0.0, 0.0);
        return Softmax(0.0, 1.0, IGNORE);
    }
    // A target past the classes must not read past them.
    let label = min(given, params.width - 1u);
    let start = row * params.width;
    var largest = -3.4028234e38;
    var best = 0u;
    for (var i = 0u; i < params.width; i++) {
        let x = logits[start + i];
        if x > largest {
            largest = x;
            best = i;
        }
    }
    var sum = 0.0;
    var weighted = 0.0;
    for (var i = 0u; i < params.width; i++) {
        let distance = logits[start + i] - largest;
        let e = exp(distance);
        sum += e;
        weighted += distance * e;
    }
    let log_sum = log(sum);
    write_statistics(row, log_sum - (logits[start + label] - largest), log_sum - weighted / sum, select(0.0, 1.0, best == label));
    return Softmax(largest, sum, label);
}

fn write_statistics(row: u32, loss: f32, entropy: f32, correct: f32) {
    statistics[3u * row] = loss;
    statistics[3u * row + 1u] = entropy;
    statistics[3u * row + 2u] = correct;
}
