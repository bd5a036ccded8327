//! `wgtune eval`.

use std::ops::ControlFlow;

use clap::Args;
use wgtune_models::data::split::HeldOut;
use wgtune_models::train::sft::{ACCURACY, evaluate};

use crate::common::{Base, Compute, Outcome, print_json, print_line};
use crate::config::Given;
use crate::data::{Conversations, Length, Source, evaluation_loader, prepare};
use crate::numbers::whole;
use crate::progress::Progress;

/// Measures loss and perplexity on rows
#[derive(Args)]
#[command(after_help = "Example:\n  wgtune eval --model DIR --adapter DIR --data held_out.jsonl --json")]
pub struct Arguments {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    conversations: Conversations,
    #[command(flatten)]
    length: Length,
    /// Rows of a batch
    #[arg(long, default_value_t = 4, value_parser = whole(1..=65_536))]
    batch_size: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// Prints them.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = arguments.base.open()?;
    let max_length = arguments.length.of(base.blueprint())?;
    if arguments.source.weights()?.is_some() {
        return Err("--data has weights, which are for training: expected names of files alone".into());
    }
    let device = arguments.compute.open()?;
    let model = arguments.base.load(&base, &device)?;
    let Arguments { source, conversations, compute, .. } = arguments;
    let data = prepare(&base, &model, source, conversations, max_length, HeldOut::Count(0), compute.seed)?;
    let loader = evaluation_loader(data.training, arguments.batch_size, data.padding);
    let mut bar = Progress::new("evaluating", loader.batches_per_epoch(), 0);
    let evaluation = evaluate(&model, &loader, &mut |_, _| {
        bar.advance("");
        ControlFlow::Continue(())
    })?;
    drop(bar);
    if arguments.json {
        return print_json(&evaluation);
    }
    print_line(&format!("loss                 {:.4} nats a token", evaluation.loss))?;
    print_line(&format!("perplexity           {:.3}", evaluation.loss.exp()))?;
    print_line(&format!("mean token accuracy  {:.4}", evaluation.figures[ACCURACY]))?;
    print_line(&format!("trained tokens       {}", evaluation.trained_tokens))
}
