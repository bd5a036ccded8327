//! A decoder and what of it is trained.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor, ops};

use super::{Full, Kept, Method};
use crate::data::template::{self, Template};
use crate::error::{Error, Result};
use crate::formats::tokenizer::Tokenizer;
use crate::transformer::{Decoder, Forward, SCORE};
use crate::wording::{counted, listed};

/// A model and its method.
#[derive(Clone)]
pub struct Tuned {
    /// The model.
    pub decoder: Decoder,
    /// What of it is trained, and what is added to it.
    pub method: Arc<dyn Method>,
    /// What makes its texts, where that is a template.
    pub template: Option<Arc<Template>>,
}

impl Tuned {
    /// A model as it is.
    pub fn bare(decoder: Decoder) -> Tuned {
        Tuned::of(Arc::new(Full::default()), decoder)
    }

    /// A model and its method.
    pub fn of(method: Arc<dyn Method>, decoder: Decoder) -> Tuned {
        Tuned { decoder, method, template: None }
    }

    /// The same with a template that makes its texts.
    ///
    /// # Errors
    /// Other virtual tokens in the template than the method has.
    pub fn with_template(self, template: Template) -> Result<Tuned> {
        let (name, own) = (self.method.name(), self.method.opening());
        let found = counted(template.virtual_tokens(), "virtual token");
        let message = match (template.virtual_tokens(), own) {
            (count, _) if count == own => return Ok(Tuned { template: Some(Arc::new(template)), ..self }),
            (_, 0) => format!("a template of {found}, and {name} has none in a text; expected fields alone"),
            (0, _) => format!("a template without virtual tokens; expected at least one <|virtual:N|> for {name}"),
            _ => format!("a template of {found}; expected {own}, as {name} has here"),
        };
        Err(Error::Data { message })
    }

    /// The same model with what its method trains on the tape, in f32.
    pub fn requiring_grad(&self) -> Tuned {
        let decoder = self.decoder.mapped(|name, tensor| match self.trains(name) {
            true if tensor.dtype() == DType::F32 => tensor.requiring_grad(),
            true => ops::cast(tensor, DType::F32).requiring_grad(),
            false => tensor.clone(),
        });
        Tuned { decoder, method: self.method.mapped(&Tensor::requiring_grad), template: self.template.clone() }
    }

    /// The same model with nothing on the tape.
    pub fn detach(&self) -> Tuned {
        Tuned { decoder: self.decoder.detach(), method: self.method.mapped(&Tensor::detach), template: self.template.clone() }
    }

    /// Whether the decoder's own parameter of this name is trained: by the method, or as the score that an adapter is kept with.
    pub fn trains(&self, parameter: &str) -> bool {
        let is_score = || parameter.strip_suffix(".weight") == Some(SCORE);
        self.method.trains(parameter) || (self.decoder.blueprint().scores && self.method.is_adapter() && is_score())
    }

    /// What is trained: of the decoder, under its names, and what is added, under those of the adapter's file.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let own = self.decoder.parameters().into_iter().filter(|(name, _)| self.trains(name));
        own.chain(self.method.parameters()).collect()
    }

    /// A training pass, whose dropout is drawn from `random`.
    pub fn training(&self, random: Philox, checkpoint_blocks: bool) -> Forward {
        Forward { tuning: self.method.tuning(Some(random)), checkpoint_blocks }
    }

    /// A pass without dropout.
    pub fn forward(&self) -> Forward {
        Forward { tuning: self.method.tuning(None), checkpoint_blocks: false }
    }

    /// The ids of the virtual tokens that a text begins with: they follow those of the vocabulary.
    pub fn opening(&self) -> Vec<u32> {
        let vocabulary = self.decoder.blueprint().vocab_size as u32;
        (vocabulary..vocabulary + self.method.opening() as u32).collect()
    }

    /// A text's tokens behind the virtual ones, unless these stand among them.
    pub fn opened(&self, ids: &[u32]) -> Vec<u32> {
        let vocabulary = self.decoder.blueprint().vocab_size;
        match ids.iter().any(|&id| id as usize >= vocabulary) {
            true => ids.to_vec(),
            false => [&self.opening(), ids].concat(),
        }
    }

    /// How many positions a text takes, with its virtual tokens and a prefix of keys.
    pub fn positions(&self, ids: &[u32]) -> usize {
        self.opened(ids).len() + self.method.prefix_length()
    }

    /// The tokens of a prompt that is a text, which fills the template where there is one.
    ///
    /// # Errors
    /// A template of several fields, or of none; as [`Tokenizer::encode`].
    pub fn prompt(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        match self.template.as_ref().map(|template| template.fields()) {
            None => tokenizer.encode(text, true),
            Some(fields) if fields.len() == 1 => self.filled(tokenizer, &Map::from_iter([(fields[0].clone(), json!(text))])),
            Some(_) => Err(self.wants_fields("a text")),
        }
    }

    /// The tokens of a prompt that the template makes of these fields.
    ///
    /// # Errors
    /// A model without a template; as [`Template::fill`] and [`Tokenizer::encode`].
    pub fn filled(&self, tokenizer: &Tokenizer, fields: &Map<String, Value>) -> Result<Vec<u32>> {
        let error = |message| Error::Data { message };
        let none = || error("fields, and the model keeps no template to fill; expected a text".into());
        let template = self.template.as_ref().ok_or_else(none)?;
        let pieces = template.fill(fields).map_err(error)?;
        template::ids(&pieces, tokenizer, self.decoder.blueprint().vocab_size)
    }

    /// Checks that conversations are not made texts by a template that the model keeps.
    ///
    /// # Errors
    /// A model that keeps one.
    pub fn check_converses(&self) -> Result<()> {
        if self.template.is_some() { Err(self.wants_fields("a conversation")) } else { Ok(()) }
    }

    fn wants_fields(&self, found: &str) -> Error {
        let template = self.template.as_ref().expect("asked where there is one");
        let fields = template.fields();
        let fields = if fields.is_empty() { "none".into() } else { listed(&fields) };
        let message = format!("{found}, and the adapter keeps the template {:?}; expected its fields: {fields}", template.text());
        Error::Data { message }
    }

    /// Writes what was trained into a folder. An adapter keeps `base`, a hash of the weights that it was made for, and the template.
    ///
    /// # Errors
    /// What [`Method::write`] says.
    pub fn write(&self, base: Option<&str>, directory: &Path) -> Result<()> {
        let score = self.decoder.blueprint().scores.then(|| self.decoder.output_weight());
        self.method.write(&self.decoder, Kept { base, template: self.template.as_deref(), score }, directory)
    }

    /// The logits [T, V] of a text, of whose tokens T there are no virtual ones.
    pub fn logits(&self, ids: &[u32]) -> Tensor {
        let (opened, forward) = (self.opened(ids), self.forward());
        let hidden = self.decoder.hidden(&self.decoder.text(&opened, &forward), &forward);
        let [first, end, width] = [opened.len() - ids.len(), opened.len(), hidden.last_size()];
        self.decoder.logits(&hidden.reshape([end, width]).slice(0, first..end))
    }

    /// (trained, all): how many numbers are trained, and how many there are.
    pub fn sizes(&self) -> (usize, usize) {
        let count = |parameters: &[(String, &Tensor)]| parameters.iter().map(|(_, tensor)| tensor.elements()).sum::<usize>();
        (count(&self.parameters()), count(&self.decoder.parameters()) + count(&self.method.parameters()))
    }
}
