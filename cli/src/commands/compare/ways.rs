//! What is compared: every method, and two that are one with something chosen of it.

use std::path::Path;

use wgtune_models::Result;
use wgtune_models::model::Model;
use wgtune_models::peft::{Entry, METHODS, method};

/// A way of tuning as it is compared.
pub struct Way {
    pub name: &'static str,
    method: &'static Entry,
}

const DORA: &str = "dora";
const HEAD: &str = "head";

/// What can be compared.
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|entry| entry.name).chain([DORA, HEAD]).collect()
}

/// The way of this name, which is one of [`names`].
pub fn way(name: &str) -> Way {
    let (of, name) = match name {
        DORA => ("lora", Some(DORA)),
        HEAD => ("full", Some(HEAD)),
        name => (name, None),
    };
    let method = method(of).expect("a method of the list");
    Way { name: name.unwrap_or(method.name), method }
}

/// The names of what can be chosen of any method.
pub fn settings() -> impl Iterator<Item = &'static str> {
    METHODS.iter().flat_map(|entry| entry.settings).map(|setting| setting.name)
}

impl Way {
    /// Whether this can be chosen of it.
    pub fn has(&self, setting: &str) -> bool {
        self.method.settings.iter().any(|own| own.name == setting)
    }

    /// Whether what it writes is an adapter, and no whole model.
    pub fn is_adapter(&self) -> bool {
        self.method.adapter.is_some()
    }

    /// The learning rate's greatest value where nobody gives one and it is not the method's. A head alone stands what would undo a whole
    /// model: benches/results/2026-11-28-methods.md.
    pub fn learning_rate(&self) -> Option<f64> {
        (self.name == HEAD).then_some(1e-3)
    }

    /// What is to be known of it with this model.
    pub fn remark(&self, model: &Model) -> Option<String> {
        let is_both = self.name == HEAD && model.blueprint().tie_word_embeddings;
        is_both.then(|| format!("{HEAD}: the output projection of this model is its embedding, which is trained as both"))
    }

    /// The options that choose it, for the model in a folder. The head of a model that ties it is its embedding.
    ///
    /// # Errors
    /// A folder that is no model's.
    pub fn words(&self, model: &Path) -> Result<Vec<String>> {
        let mut words = vec![format!("--method={}", self.method.name)];
        match self.name {
            DORA => words.push("--dora".into()),
            HEAD => {
                let model = Model::open(model)?;
                let blueprint = model.blueprint();
                let head = if blueprint.tie_word_embeddings { blueprint.family.names.embedding } else { "lm_head" };
                words.push(format!("--train-only={head}.*"));
            }
            _ => {}
        }
        Ok(words)
    }
}
