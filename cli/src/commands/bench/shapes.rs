//! The sizes that ops are measured at: those of known models, and those that other libraries' benches use.

use clap::ValueEnum;

/// A set of shapes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Shapes {
    /// What other libraries' benches use: products of 4096 x 4096 (1024 x 1024 on the CPU), rows of 1024, attention of 4 x 128
    Common,
    /// SmolLM2-135M: width 576, 9 heads of 64 over 3, 1536 inside, 49,152 tokens
    #[value(name = "135m")]
    Small,
    /// Llama-3.2-1B: width 2048, 32 heads of 64 over 8, 8192 inside, 128,256 tokens
    #[value(name = "1b")]
    Middle,
    /// Llama-2-7B: width 4096, 32 heads of 128, 11,008 inside, 32,000 tokens
    #[value(name = "7b")]
    Large,
    /// All of them
    All,
}

/// The sizes of one model at so many tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    pub model: &'static str,
    pub tokens: usize,
    pub hidden: usize,
    pub heads: usize,
    pub key_heads: usize,
    pub head_dim: usize,
    pub inside: usize,
    pub vocabulary: usize,
}

impl Shapes {
    /// The sets that this stands for.
    pub fn expand(self) -> Vec<Shapes> {
        match self {
            Shapes::All => vec![Shapes::Common, Shapes::Small, Shapes::Middle, Shapes::Large],
            one => vec![one],
        }
    }

    /// The model's sizes; `None` for shapes that are no model's.
    pub fn sizes(self, tokens: usize) -> Option<Sizes> {
        let (model, hidden, [heads, key_heads, head_dim], inside, vocabulary) = match self {
            Shapes::Small => ("135m", 576, [9, 3, 64], 1536, 49_152),
            Shapes::Middle => ("1b", 2048, [32, 8, 64], 8192, 128_256),
            Shapes::Large => ("7b", 4096, [32, 32, 128], 11_008, 32_000),
            Shapes::Common | Shapes::All => return None,
        };
        Some(Sizes { model, tokens, hidden, heads, key_heads, head_dim, inside, vocabulary })
    }
}

impl Sizes {
    /// The same model with fewer tokens and smaller tables, where the sums behind a result are as long as before but for those
    /// over tokens and vocabulary: what is checked against f64 where the whole would take too long.
    pub fn reduced(self) -> Sizes {
        Sizes { tokens: self.tokens.min(32), inside: self.inside.min(1536), vocabulary: self.vocabulary.min(2048), ..self }
    }
}
