// The softmax of rows by teams. Whoever imports this binds `logits`, `targets`, `statistics` and `params`.
#import team

struct Params { rows: u32, width: u32, first: u32, weighted: u32 }

const IGNORE = 0xffffffffu;

struct Softmax { offset: f32, sum: f32, mean: f32, label: u32 }

// Writes the row's loss, entropy and correctness. A row that does not count writes zeros and has the label IGNORE; a row past
// the end writes nothing.
fn softmax_of(walk: Walk, local: vec2<u32>) -> Softmax {
    let known = min(walk.row, max(params.rows, 1u) - 1u);
    let given = targets[params.first + known];
    let counts = given != IGNORE;
    // A target past the classes must not read past them.
    let label = min(given, params.width - 1u);
    let end = select(walk.first, walk.end, counts);
    var most = Element(-3.4028234e38);
    for (var i = walk.first; i < end; i += LANES) {
        most = max(most, logits[i]);
    }
    let offset = team_max(largest(most), local);
    var sums = Element(0.0);
    var products = Element(0.0);
    var earlier = Element(0.0);
    var place = local.x;
    for (var i = walk.first; i < end; i += LANES) {
        let distance = logits[i] - offset;
        let e = exp(distance);
        sums += e;
        products += distance * e;
        earlier += number((indices_at(place) < Indices(label)) & (distance == Element(0.0)));
        place += LANES;
    }
    let sum = team_sum(total(sums), local);
    let mean = team_sum(total(products), local) / sum;
    let better = team_sum(total(earlier), local);
    if local.x == 0u && walk.row < params.rows {
        let distance = component(logits[known * (params.width / WIDTH) + label / WIDTH], label % WIDTH) - offset;
        let correct = counts && distance == 0.0 && better == 0.0;
        statistics[3u * walk.row] = select(0.0, log(sum) - distance, counts);
        statistics[3u * walk.row + 1u] = select(0.0, log(sum) - mean, counts);
        statistics[3u * walk.row + 2u] = select(0.0, 1.0, correct);
    }
    return Softmax(offset, sum, select(0.0, mean, counts), select(IGNORE, label, counts));
}
