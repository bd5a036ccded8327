//! Answers as choices: which of a few completions a model finds the most likely behind a prompt.

use std::collections::BTreeSet;

use super::answers::log_probs;
use super::recipe::OnBatch;
use crate::data::encode::{Encoder, Example, Report};
use crate::data::rows::{Content, Dataset, Row};
use crate::error::{Error, Result};
use crate::peft::Tuned;

/// The most completions that are taken for a choice.
pub const MOST_CHOICES: usize = 16;

/// A prompt with each completion behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The prompt with every choice, in the choices' order.
    pub candidates: Vec<Example>,
    /// Which of them is the row's own.
    pub right: usize,
}

/// The distinct completions of rows that are all a prompt and a completion, sorted; `None` where some are not, or where there are
/// fewer than two or more than [`MOST_CHOICES`].
pub fn choices(rows: &[Row]) -> Option<Vec<String>> {
    let mut distinct = BTreeSet::new();
    for row in rows {
        match &row.content {
            Content::Completion { completion, .. } if distinct.len() <= MOST_CHOICES => distinct.insert(completion.clone()),
            _ => return None,
        };
    }
    (2..=MOST_CHOICES).contains(&distinct.len()).then(|| distinct.into_iter().collect())
}

/// The questions that rows of `dataset` come to. A row of which some choice is cut off at the length is left out.
///
/// # Errors
/// What [`Encoder::row`] says.
pub fn questions(encoder: &Encoder, dataset: &Dataset, rows: &[Row], choices: &[String]) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for row in rows {
        let Content::Completion { prompt, completion } = &row.content else { continue };
        let mut report = Report::default();
        let mut candidates = Vec::new();
        for choice in choices {
            let content = Content::Completion { prompt: prompt.clone(), completion: choice.clone() };
            candidates.extend(encoder.row(dataset, &Row { content, ..row.clone() }, &mut report)?);
        }
        let right = choices.iter().position(|choice| choice == completion);
        questions.extend(right.filter(|_| report.truncated == 0).map(|right| Question { candidates, right }));
    }
    Ok(questions)
}

/// The share of questions whose right choice is the most likely: by the sum of the log-probabilities of its tokens that carry loss,
/// the first of equals. So many candidates go through the model together.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks; no question, or a device that failed.
pub fn accuracy(model: &Tuned, questions: &[Question], batch_size: usize, on_batch: &mut OnBatch) -> Result<f64> {
    if questions.is_empty() {
        return Err(Error::Data { message: "no row has room for all choices: nothing to choose".into() });
    }
    let candidates: Vec<&Example> = questions.iter().flat_map(|question| &question.candidates).collect();
    let sums = log_probs(model, &candidates, batch_size, on_batch)?;
    let mut sums = sums.into_iter();
    let is_right = |question: &&Question| {
        let own: Vec<f32> = sums.by_ref().take(question.candidates.len()).collect();
        let best = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        own.iter().position(|&sum| sum == best) == Some(question.right)
    };
    Ok(questions.iter().filter(is_right).count() as f64 / questions.len() as f64)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use serde_json::json;
    use wgtune_engine::Device;

    use super::*;
    use crate::data::IGNORE;
    use crate::transformer::{Blueprint, new_decoder};

    fn row(content: Content) -> Row {
        Row { file: 0, line: 1, content }
    }

    fn completion(completion: &str) -> Row {
        row(Content::Completion { prompt: "p".into(), completion: completion.into() })
    }

    #[test]
    fn few_distinct_completions_are_choices() {
        let rows = [completion(" good"), completion(" bad"), completion(" good")];
        assert_eq!(choices(&rows), Some(vec![" bad".into(), " good".into()]));
        assert_eq!(choices(&rows[..1]), None);
        assert_eq!(choices(&[completion("a"), completion("b"), row(Content::Text("c".into()))]), None);
        let many = |count: usize| (0..count).map(|number| completion(&number.to_string())).collect::<Vec<_>>();
        assert_eq!(choices(&many(16)).map(|choices| choices.len()), Some(16));
        assert_eq!(choices(&many(17)), None);
    }

    #[test]
    fn the_most_likely_choice_is_what_the_logits_of_each_alone_say() {
        let config = json!({
            "model_type": "llama", "vocab_size": 7, "hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 8, "tie_word_embeddings": false, "initializer_range": 0.8,
        });
        let blueprint = Blueprint::from_json(Path::new("small"), config).unwrap();
        let model = Tuned::bare(new_decoder(blueprint, &Device::cpu(), 3).unwrap());
        let candidate = |first: u32, ids: &[u32]| {
            let ids = [&[first, 2], ids].concat();
            Example { labels: ids.iter().enumerate().map(|(at, &id)| if at < 2 { IGNORE } else { id }).collect(), ids }
        };
        let score = |example: &Example| -> f64 {
            let logits = model.logits(&example.ids).to_vec().unwrap();
            let log_prob = |at: usize| {
                let row: Vec<f64> = logits[7 * at..7 * at + 7].iter().map(|&logit| f64::from(logit)).collect();
                row[example.ids[at + 1] as usize] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln()
            };
            (1..example.ids.len() - 1).map(log_prob).sum()
        };
        let mut expected = 0;
        let questions: Vec<Question> = (0..7)
            .map(|first| {
                let candidates = vec![candidate(first, &[4]), candidate(first, &[3]), candidate(first, &[5, 1])];
                let scores: Vec<f64> = candidates.iter().map(score).collect();
                expected += usize::from(scores[0] > scores[1] && scores[0] > scores[2]);
                Question { candidates, right: 0 }
            })
            .collect();
        assert!((1..7).contains(&expected), "{expected}");
        // Of each question's choices the first two go through the model as one row.
        for (batch_size, batches) in [(1, 14), (4, 4), (100, 1)] {
            let mut counted = 0;
            let mut count = |_, of| {
                counted = of;
                ControlFlow::Continue(())
            };
            let share = accuracy(&model, &questions, batch_size, &mut count).unwrap();
            assert_eq!((share, counted), (expected as f64 / 7.0, batches));
        }
        let stopped = accuracy(&model, &questions, 4, &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(accuracy(&model, &[], 4, &mut |_, _| ControlFlow::Continue(())).is_err());
    }
}
