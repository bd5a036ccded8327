//! What the laws run matrix products on.

use super::halves::halves;
use super::parts::multiply_in_parts;
use super::{Activation, Epilogue, linear, linear_with, matmul, matmul_accumulate, matmul_with};
use crate::Tensor;
use crate::dtype::DType;
use crate::ops::{self, cast, copy};
use crate::random::Philox;
use crate::testing::{Case, Input};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for [m, k, n] in [
        [1, 1, 1],
        [2, 3, 4],
        [63, 65, 64],
        [64, 64, 64],
        [65, 257, 66],
        [257, 16, 255],
        [1, 255, 257],
        [256, 1, 3],
        [3, 0, 5],
        [0, 4, 5],
        [8, 6, 12],
        [36, 20, 260],
    ] {
        let label = |kind: &str| format!("matmul {kind} {m}x{k}x{n}");
        cases.push(
            Case::new(label("NN"), [Input::any([m, k]), Input::any([k, n])], |x| vec![matmul(&x[0], &x[1])])
                .terms(m.max(k).max(n)),
        );
        cases.push(
            Case::new(label("NT"), [Input::any([m, k]), Input::any([n, k])], |x| vec![matmul(&x[0], &x[1].transpose())])
                .terms(m.max(k).max(n)),
        );
        cases.push(
            Case::new(label("TN"), [Input::any([k, m]), Input::any([k, n])], |x| vec![matmul(&x[0].transpose(), &x[1])])
                .terms(m.max(k).max(n)),
        );
    }
    let long = [Input::any([4, 70_000]), Input::any([70_000, 4])];
    cases.push(Case::new("matmul over a vocabulary", long, |x| vec![matmul(&x[0], &x[1])]).terms(70_000).large());
    cases.push(
        Case::new("matmul batched", [Input::any([2, 3, 5, 7]), Input::any([2, 3, 7, 4])], |x| vec![matmul(&x[0], &x[1])])
            .terms(7),
    );
    cases.push(
        Case::new("matmul broadcast", [Input::any([3, 1, 5, 7]), Input::any([2, 7, 4])], |x| vec![matmul(&x[0], &x[1])])
            .terms(21),
    );
    cases.push(
        Case::new("matmul of grouped heads", [Input::any([2, 6, 4, 8]), Input::any([2, 9, 2, 8])], |x| {
            // Three query heads share a key head: [B, H, T, D] times [B, KV, 1, S, D], without a copy.
            let query = x[0].reshape([2, 2, 3, 4, 8]);
            let key = x[1].permute(&[0, 2, 3, 1]).reshape([2, 2, 1, 8, 9]);
            vec![matmul(&query, &key)]
        })
        .terms(27),
    );
    // Operands in fewer elements than K has.
    let stretched = [Input::any([16, 1]), Input::any([64, 16])];
    cases
        .push(Case::new("matmul of an expanded left side", stretched, |x| vec![matmul(&x[0].expand([16, 64]), &x[1])]).terms(64));
    let stretched = [Input::any([16, 64]), Input::any([1, 16])];
    cases.push(
        Case::new("matmul of an expanded right side", stretched, |x| vec![matmul(&x[0], &x[1].expand([64, 16]))]).terms(64),
    );
    cases.push(Case::new("linear", [Input::any([2, 5, 64]), Input::any([33, 64])], |x| vec![linear(&x[0], &x[1])]).terms(64));
    cases.push(
        Case::new("linear of one row", [Input::any([1, 1, 193]), Input::any([300, 193])], |x| vec![linear(&x[0], &x[1])])
            .terms(193),
    );
    // Rows of whole vectors, of which a workgroup has several, and one that ends in the middle of them.
    for [inputs, outputs] in [[4, 2], [196, 301], [2052, 7]] {
        let case = Case::new(
            format!("linear of one row in whole vectors {inputs}x{outputs}"),
            [Input::any([1, inputs]), Input::any([outputs, inputs])],
            |x| vec![linear(&x[0], &x[1])],
        );
        cases.push(case.terms(inputs));
    }
    let parts = [Input::any([1, 64]), Input::any([12, 64])];
    let case = Case::new("linear of one row with rows of a weight", parts, |x| {
        vec![
            linear(&x[0], &x[1].slice(0, 3..10)),
            linear(&x[0].slice(1, 1..62), &x[1].reshape([768]).slice(0, 2..734).reshape([12, 61])),
        ]
    });
    cases.push(case.terms(64));
    let wide = [Input::any([2, 40_000]), Input::any([3, 40_000])];
    cases.push(Case::new("linear of few rows over a vocabulary", wide, |x| vec![linear(&x[0], &x[1])]).terms(40_000).large());
    for dtype in [DType::BF16, DType::F16] {
        for [rows, inputs, outputs] in [[1, 66, 34], [1, 8, 2], [1, 264, 35], [9, 66, 34], [9, 64, 72], [70, 264, 136]] {
            let label = format!("linear with a {dtype} weight {rows}x{inputs}x{outputs}");
            let tensors = [Input::any([rows, inputs]), Input::fixed([outputs, inputs])];
            let case = Case::new(label, tensors, move |x| vec![linear(&x[0], &cast(&x[1], dtype))]);
            cases.push(case.terms(inputs.max(outputs)));
        }
        let scattered = [Input::any([5, 4, 66]), Input::fixed([3, 66, 5])];
        let label = format!("matmul with a scattered {dtype} right side");
        cases.push(Case::new(label, scattered, move |x| vec![matmul(&x[0], &cast(&x[1], dtype).permute(&[2, 1, 0]))]).terms(66));
    }
    // As they are, and far outside the range; of one word, and of several workgroups; halfway between two numbers of f16, and nothing but 0.
    let halfway = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, -2049.0, 2051.0, 0.1, -1.0 / 3.0, 1000.1, 0.0];
    let some = |elements: usize, size: f32| (format!("{elements} of size {size:e}"), Input::fixed([elements]), size);
    let given = |size: f32| (format!("what is halfway, of size {size:e}"), Input::given([8], &halfway), size);
    let some = [some(1, 1.0), some(4099, 1.0), some(70_000, 1e30), some(257, 1e-12), some(9, 0.0)];
    for (name, input, size) in some.into_iter().chain([1.0, 1e30, 1e-30].map(given)) {
        let case = Case::new(format!("halves of {name}"), [input], move |x| {
            let x = ops::scale(&x[0], size);
            let halved = [halves(&x), halves(&cast(&x, DType::BF16))];
            halved.into_iter().flat_map(|[halves, scale]| [cast(&halves, DType::F32), scale]).collect()
        });
        cases.push(case);
    }
    cases.extend(epilogues());
    cases
}

fn epilogues() -> Vec<Case> {
    let mut cases = Vec::new();
    for [m, k, n] in [[1, 66, 34], [5, 7, 3], [65, 8, 258], [36, 0, 8]] {
        let inputs = || [Input::any([m, k]), Input::any([n, k]), Input::any([n]), Input::any([m, n])];
        let label = |kind: &str| format!("linear {m}x{k}x{n} with {kind}");
        let terms = m.max(k).max(n);
        let case = Case::new(label("scale, bias and residual"), inputs(), |x| {
            vec![linear_with(
                &x[0],
                &x[1],
                &Epilogue { scale: -0.75, bias: Some(&x[2]), residual: Some(&x[3]), activation: None },
            )]
        });
        cases.push(
            case.terms(terms).composed(|x| vec![ops::add(&ops::add(&ops::scale(&linear(&x[0], &x[1]), -0.75), &x[2]), &x[3])]),
        );
        let case = Case::new(label("a bias"), inputs(), |x| {
            vec![linear_with(&x[0], &x[1], &Epilogue { bias: Some(&x[2]), ..Default::default() })]
        });
        cases.push(case.terms(terms).composed(|x| vec![ops::add(&linear(&x[0], &x[1]), &x[2])]));
        // Each of them on one row and on few; drivers on the CPU compile larger tiles for seconds.
        let activations = [Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Gelu];
        for &activation in &activations[..if m <= 5 { 4 } else { 1 }] {
            let run = move |x: &[Tensor]| {
                vec![linear_with(
                    &x[0],
                    &x[1],
                    &Epilogue { scale: 0.5, bias: Some(&x[2]), activation: Some(activation), residual: Some(&x[3]) },
                )]
            };
            let composed = move |x: &[Tensor]| {
                vec![ops::add(&activation.apply(&ops::add(&ops::scale(&linear(&x[0], &x[1]), 0.5), &x[2])), &x[3])]
            };
            let frozen = [Input::fixed([m, k]), Input::fixed([n, k]), Input::fixed([n]), Input::fixed([m, n])];
            cases.push(Case::new(label(&format!("a frozen {activation:?}")), frozen, run).terms(k).composed(composed));
        }
        let case = Case::new(label("an activation that trains"), inputs(), |x| {
            let epilogue =
                Epilogue { bias: Some(&x[2]), activation: Some(Activation::Gelu), residual: Some(&x[3]), ..Default::default() };
            vec![linear_with(&x[0], &x[1], &epilogue)]
        });
        cases.push(case.terms(terms));
        let sums = [Input::fixed([m, k]), Input::fixed([k, n]), Input::fixed([m, n])];
        let case = Case::new(format!("matmul accumulates {m}x{k}x{n}"), sums, |x| {
            let y = copy(&x[2]);
            matmul_accumulate(&y, &x[0], &x[1], 0.5);
            vec![y]
        });
        cases.push(case.terms(k).composed(|x| vec![ops::add(&ops::scale(&matmul(&x[0], &x[1]), 0.5), &x[2])]));
    }
    // What a pass puts into the product: rows of whole vectors and others, and a side that is turned.
    for [m, k, n] in [[1, 64, 32], [36, 24, 64], [7, 9, 5], [65, 8, 258], [300, 64, 8]] {
        let inputs = [Input::any([m, k]), Input::any([n, k]), Input::any([m, n])];
        let case = Case::new(format!("linear {m}x{k}x{n}, dropped and added"), inputs, |x| {
            vec![ops::add(&ops::dropout(&linear(&x[0], &x[1]), Philox::new(11), 0.3), &x[2])]
        });
        cases.push(case.terms(m.max(k).max(n)));
    }
    for [m, k, n, parts] in [[5, 96, 7, 4], [64, 64, 8, 8], [3, 6, 2, 3]] {
        let fixed = [Input::fixed([m, k]), Input::fixed([n, k]), Input::fixed([n]), Input::fixed([m, n])];
        let run = move |x: &[Tensor]| {
            let epilogue = Epilogue { scale: 0.5, bias: Some(&x[2]), activation: Some(Activation::Silu), residual: Some(&x[3]) };
            vec![multiply_in_parts(&x[0], &x[1].transpose(), &epilogue, parts as u32)]
        };
        let composed = |x: &[Tensor]| {
            let epilogue = Epilogue { scale: 0.5, bias: Some(&x[2]), activation: Some(Activation::Silu), residual: Some(&x[3]) };
            vec![linear_with(&x[0], &x[1], &epilogue)]
        };
        cases.push(Case::new(format!("matmul {m}x{k}x{n} in {parts} parts"), fixed, run).terms(k).composed(composed));
    }
    let inputs = [Input::any([2, 3, 5, 7]), Input::any([3, 7, 4]), Input::any([4]), Input::any([2, 3, 5, 4])];
    let case = Case::new("matmul batched with a bias and a residual", inputs, |x| {
        vec![matmul_with(&x[0], &x[1], &Epilogue { bias: Some(&x[2]), residual: Some(&x[3]), ..Default::default() })]
    });
    cases.push(case.terms(30).composed(|x| vec![ops::add(&ops::add(&matmul(&x[0], &x[1]), &x[2]), &x[3])]));
    cases
}
