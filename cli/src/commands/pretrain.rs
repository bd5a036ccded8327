//! `wgtune pretrain`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use wgtune_engine::DType;
use wgtune_models::data::encode::Encoder;
use wgtune_models::data::rows::{Content, Dataset};
use wgtune_models::formats::chat_template::{CHATML, ChatTemplate};
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::peft::Tuned;
use wgtune_models::transformer::Blueprint;
use wgtune_models::transformer::{new_decoder, save_decoder};

use crate::common::{Compute, Outcome};
use crate::config::Given;
use crate::data::{Source, encode};
use crate::numbers::whole;
use crate::plan;
use crate::probes::Probes;
use crate::runs;
use crate::texts::Texts;
use crate::training::{Job, Training};

/// Trains a tokenizer and a small Llama from plain text
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune pretrain --data stories.txt --out DIR --steps 2000 --packing --max-length 256\n  \
    wgtune pretrain --config DIR/run.toml --out OTHER")]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where the model, metrics.jsonl and the checkpoint go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    training: Training,
    #[command(flatten)]
    texts: Texts,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
struct Shape {
    /// Tokens of the byte-level BPE vocabulary
    #[arg(long, default_value_t = 1024, value_parser = whole(259..=1 << 20))]
    vocab_size: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 128, value_parser = whole(1..=65_536))]
    hidden_size: usize,
    /// Width inside the feed-forward layers
    #[arg(long, default_value_t = 352, value_parser = whole(1..=262_144))]
    intermediate_size: usize,
    /// Blocks
    #[arg(long, default_value_t = 4, value_parser = whole(1..=1024))]
    layers: usize,
    /// Query heads
    #[arg(long, default_value_t = 4, value_parser = whole(1..=1024))]
    heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 2, value_parser = whole(1..=1024))]
    key_value_heads: usize,
    /// Store the weights in this type
    #[arg(long, value_enum, default_value_t = Storage::F32)]
    dtype: Storage,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Storage {
    F32,
    F16,
    Bf16,
}

/// Trains and writes the model.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let (training, seed, out) = (&arguments.training, arguments.compute.seed, &arguments.out);
    arguments.texts.check(&arguments.source)?;
    if !arguments.texts.plan {
        training.check(out, &[])?;
    }
    training.check_evaluation()?;
    let max_length = training.length.of_new_model();
    arguments.shape.check()?;
    let device = if arguments.texts.plan { arguments.compute.open_dry()? } else { arguments.compute.open()? };
    let dataset = arguments.source.read(None)?;
    let tokenizer = arguments.shape.tokenizer(&dataset)?;
    let config = arguments.shape.config(&tokenizer, max_length)?;
    let encoder = Encoder {
        tokenizer: Some(&tokenizer),
        template: &ChatTemplate::new(out, CHATML, BTreeMap::new())?,
        vocab_size: config.vocab_size,
        max_length,
        opening: &[],
        prefix: 0,
        split_text: true,
        last_turn_only: false,
    };
    let weights = arguments.source.weights()?;
    let data = encode(&dataset, weights.as_deref(), &encoder, &config, training.held_out(), seed)?;
    let dtype = config.dtype.unwrap_or(DType::F32);
    let model = Tuned::bare(new_decoder(config, &device, seed)?).requiring_grad();
    let samples = training.samples(Some(&tokenizer), &model)?;
    let (recipe, hashes) = arguments.texts.learning(training, data, seed, max_length);
    let job = Job {
        label: String::new(),
        training,
        model,
        recipe,
        out: out.clone(),
        seed,
        max_length,
        default_learning_rate: 1e-3,
        given,
        chosen: Vec::new(),
        samples,
        probes: Probes::default(),
        hashes,
        write: Box::new(|model| {
            tokenizer.save(out)?;
            save_decoder(out, &model.decoder, dtype, |_, _| Ok(None))
        }),
    };
    if arguments.texts.plan {
        return plan::print(vec![job], arguments.json);
    }
    runs::one(job)?.print(arguments.json)
}

/// Numbers of the largest model that is made here: its weights, gradients and moments take 32 GB.
const MOST_PARAMETERS: usize = 2_000_000_000;

impl Shape {
    /// Checks the sizes against each other, before anything is read or allocated.
    fn check(&self) -> Result<(), String> {
        let attention = 2 * self.hidden_size + 2 * self.hidden_size * self.key_value_heads / self.heads;
        let block = self.hidden_size * (attention + 3 * self.intermediate_size);
        let parameters = self.vocab_size * self.hidden_size + self.layers * block;
        if parameters > MOST_PARAMETERS {
            return Err(format!(
                "a model of {parameters} parameters: expected at most {MOST_PARAMETERS}; lower --hidden-size, --intermediate-size, \
                 --layers or --vocab-size"
            ));
        }
        if !self.hidden_size.is_multiple_of(2 * self.heads) || !self.heads.is_multiple_of(self.key_value_heads) {
            let Shape { hidden_size, heads, key_value_heads, .. } = self;
            return Err(format!(
                "--hidden-size {hidden_size}, --heads {heads}, --key-value-heads {key_value_heads}: expected heads of an even width, \
                 and as many for each key and value head"
            ));
        }
        Ok(())
    }

    fn tokenizer(&self, dataset: &Dataset) -> wgtune_models::Result<Tokenizer> {
        let mut texts = Vec::with_capacity(dataset.rows.len());
        for row in &dataset.rows {
            match &row.content {
                Content::Text(text) => texts.push(text.as_str()),
                _ => {
                    return Err(
                        dataset.error_at(row, "expected plain text, or rows with `text`: pretraining learns whole texts".into())
                    );
                }
            }
        }
        Tokenizer::train(texts.into_iter(), self.vocab_size)
    }

    fn config(&self, tokenizer: &Tokenizer, max_length: usize) -> wgtune_models::Result<Blueprint> {
        let dtype = match self.dtype {
            Storage::F32 => "float32",
            Storage::F16 => "float16",
            Storage::Bf16 => "bfloat16",
        };
        let config = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": tokenizer.vocab_size(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": max_length.max(2048),
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": tokenizer.bos_id(),
            "eos_token_id": tokenizer.eos_ids(),
            "pad_token_id": tokenizer.pad_id(),
            "initializer_range": 0.02,
            "torch_dtype": dtype,
        });
        Blueprint::from_json("the shape given on the command line".as_ref(), config)
    }
}
