// The softmax of one row by a workgroup of 256. Whoever imports this binds `logits`, `targets`, `statistics` and `params`.
#import workgroup_reduce

struct Params { rows: u32, width: u32, first: u32 }

const IGNORE = 0xffffffffu;

struct Softmax { largest: f32, sum: f32, label: u32 }

// Writes the row's loss, entropy and correctness. A row that does not count writes zeros and has the label IGNORE; a row past
// the end writes nothing.
fn workgroup_softmax(row: u32, lane: u32) -> Softmax {
    let start = row * params.width;
    var given = IGNORE;
    if row < params.rows {
        given = targets[params.first + row];
    }
    let counts = given != IGNORE;
    let width = select(0u, params.width, counts);
    // A target past the classes must not read past them.
    let label = min(given, params.width - 1u);
    var part = -3.4028234e38;
    for (var i = lane; i < width; i += 256u) {
        part = max(part, logits[start + i]);
    }
    let largest = workgroup_max(part, lane);
    var exponentials = 0.0;
    var products = 0.0;
    var earlier = 0.0;
    for (var i = lane; i < width; i += 256u) {
        let distance = logits[start + i] - largest;
        let e = exp(distance);
        exponentials += e;
        products += distance * e;
        earlier += select(0.0, 1.0, i < label && distance == 0.0);
    }
    let sum = workgroup_sum(exponentials, lane);
    let weighted = workgroup_sum(products, lane);
    let better = workgroup_sum(earlier, lane);
    if lane == 0u && row < params.rows {
        var loss = 0.0;
        var entropy = 0.0;
        var correct = 0.0;
        if counts {
            let distance = logits[start + label] - largest;
            loss = log(sum) - distance;
            entropy = log(sum) - weighted / sum;
            correct = select(0.0, 1.0, distance == 0.0 && better == 0.0);
        }
        statistics[3u * row] = loss;
        statistics[3u * row + 1u] = entropy;
        statistics[3u * row + 2u] = correct;
    }
    return Softmax(largest, sum, select(IGNORE, label, counts));
}
