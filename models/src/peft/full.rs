//! A model's own parameters, all of them or some.

use std::path::Path;
use std::sync::Arc;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor};

use super::settings::{Form, Setting, names};
use super::{Entry, Kept, Method, Start, Tuned};
use crate::error::{Error, Result};
use crate::nn::Tuning;
use crate::transformer::Decoder;
use crate::transformer::save_decoder;

pub(super) const ENTRY: Entry = Entry {
    name: "full",
    about: "The model's own parameters",
    // TRL's.
    learning_rate: 2e-5,
    settings: &[Setting {
        name: "train-only",
        help: "Of a model's own parameters only those whose name fits one of these patterns, separated by commas, in which * stands \
               for anything: the head is lm_head.weight, the last of 30 blocks model.layers.29.*",
        form: Form::Text { value: "PATTERNS", default: "", check: |text| names(text).map(drop) },
    }],
    begin: |settings, Start { decoder, .. }| {
        let patterns = Some(settings.text("train-only")).filter(|text| !text.is_empty());
        let only = patterns.map(names).transpose().map_err(|message| Error::Data { message })?;
        Ok(Tuned::of(Arc::new(Full::new(only, &decoder)?), decoder))
    },
    adapter: None,
};

/// Trains a model's own parameters, and adds none.
#[derive(Clone, Default)]
pub struct Full {
    /// Those whose names fit one of these patterns; all if `None`.
    only: Option<Vec<String>>,
}

impl Full {
    /// Those of a decoder whose names fit one of the patterns; all of them without any.
    ///
    /// # Errors
    /// A pattern that none fits.
    pub fn new(only: Option<Vec<String>>, decoder: &Decoder) -> Result<Full> {
        let parameters = decoder.parameters();
        let is_lost = |pattern: &&String| !parameters.iter().any(|(name, _)| fits(name, pattern));
        match only.iter().flatten().find(is_lost) {
            Some(pattern) => Err(Error::Data { message: no_parameter(pattern, decoder) }),
            None => Ok(Full { only }),
        }
    }
}

fn no_parameter(pattern: &str, decoder: &Decoder) -> String {
    let is_tied = decoder.blueprint().tie_word_embeddings && fits("lm_head.weight", pattern);
    let parameters = decoder.parameters();
    let expected = match is_tied {
        true => format!("`{}.weight`, which is the output projection too", decoder.embedding().path),
        false => {
            let (first, last) = (&parameters[1].0, &parameters[parameters.len() - 1].0);
            format!("names as {first} and {last}, with * for anything")
        }
    };
    format!("no parameter of this model fits {pattern:?}; expected {expected}")
}

/// Whether a name is a pattern in which * stands for any text.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut left) = name.strip_prefix(begin) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The first place is as good as any for all but the end.
    for part in middle.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

impl Method for Full {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn trains(&self, parameter: &str) -> bool {
        self.only.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| fits(parameter, pattern)))
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        Vec::new()
    }

    fn mapped(&self, _: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        Arc::new(self.clone())
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(())
    }

    fn merged(&self, _: &str, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn is_adapter(&self) -> bool {
        false
    }

    fn write(&self, decoder: &Decoder, _: Kept, directory: &Path) -> Result<()> {
        save_decoder(directory, decoder, decoder.blueprint().dtype.unwrap_or(DType::F32), |_, _| Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
        let name = "model.layers.12.mlp.up_proj.weight";
        for pattern in [name, "*", "model.layers.12.*", "*.up_proj.weight", "model.*.mlp.*.weight", "*layers*mlp*", "**weight"] {
            assert!(fits(name, pattern), "{pattern}");
        }
        for pattern in ["", "model", "layers.12.*", "*.up_proj", "model.layers.1.*", "*mlp*layers*", "*weight*weight", "m*l*x*"] {
            assert!(!fits(name, pattern), "{pattern}");
        }
    }
}
