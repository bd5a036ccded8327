// The softmax of rows by teams. Whoever imports this binds `logits`, `targets`, `statistics` and `params`.
#import team

struct Params { rows: u32, width: u32, first: u32, weighted: u32 }

const IGNORE = 0xffffffffu;

// e^(logit - offset) summed over the row, and those less the offset weighted by it.
struct Softmax { offset: f32, sum: f32, mean: f32, label: u32 }

// Sums over what an invocation has seen of a row: of e^distance, where distances are from `most`, and of distance e^distance; and how
// many logits come before the target, as larger ones and earlier equals do.
struct Partition { most: f32, sums: Element, products: Element, better: Element }

// Writes the row's loss, entropy and correctness. A row that does not count writes zeros and has the label IGNORE; a row past
// the end writes nothing. The team has read the target's logit by then.
fn softmax_of(walk: Walk, local: Local) -> Softmax {
    let known = min(walk.row, max(params.rows, 1u) - 1u);
    let given = targets[params.first + known];
    let counts = given != IGNORE;
    // A target past the classes must not read past them.
    let label = min(given, params.width - 1u);
    let end = select(walk.first, walk.end, counts);
    var aim = 0.0;
    if walk.row < params.rows {
        aim = component(logits[known * (params.width / WIDTH) + label / WIDTH], label % WIDTH);
    }
    let seen = seen_by_one(walk, end, local.lane, label, aim);
    let offset = team_max(seen.most, local);
    // As far as e^shift is 0, and a product with what was summed finite.
    let shift = max(seen.most - offset, -1e30);
    let kept = exp(shift);
    let sum = team_sum(kept * total(seen.sums), local);
    let mean = team_sum(kept * (total(seen.products) + shift * total(seen.sums)), local) / sum;
    let better = team_sum(total(seen.better), local);
    if local.lane == 0u && walk.row < params.rows {
        let distance = aim - offset;
        statistics[3u * walk.row] = select(0.0, log(sum) - distance, counts);
        statistics[3u * walk.row + 1u] = select(0.0, log(sum) - mean, counts);
        statistics[3u * walk.row + 2u] = select(0.0, 1.0, counts && better == 0.0);
    }
    return Softmax(offset, sum, select(0.0, mean, counts), select(IGNORE, label, counts));
}

// Reads logits once: what was summed moves to every new largest (Milakov and Gimelshein 2018, arXiv:1805.02867).
fn seen_by_one(walk: Walk, end: u32, first: u32, label: u32, aim: f32) -> Partition {
    var seen = Partition(-3.4028234e38, Element(0.0), Element(0.0), Element(0.0));
    var place = first;
    for (var i = walk.first; i < end; i += LANES) {
        let logit = logits[i];
        let most = max(seen.most, largest(logit));
        let shift = max(seen.most - most, -1e30);
        let kept = exp(shift);
        let distance = logit - most;
        let e = exp(distance);
        seen.most = most;
        seen.products = kept * (seen.products + shift * seen.sums) + distance * e;
        seen.sums = kept * seen.sums + e;
        seen.better += better(logit, aim, place, label);
        place += LANES;
    }
    return seen;
}

// 1 for each of the logits at a place that comes before the target.
fn better(logit: Element, aim: f32, place: u32, label: u32) -> Element {
    let is_earlier = indices_at(place) < Indices(label);
    return number((logit > Element(aim)) | ((logit == Element(aim)) & is_earlier));
}
