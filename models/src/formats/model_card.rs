//! The model card of an adapter: the README.md that a hub shows (<https://huggingface.co/docs/hub/model-cards>).

/// The name of a model card.
pub const CARD_FILE: &str = "README.md";

/// Whether a model's name is one of a hub, `owner/name`, and not a path.
pub fn is_hub_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

/// What the card of an adapter says.
pub struct Card<'a> {
    /// What the adapter calls its base.
    pub base: Option<&'a str>,
    /// What a reader calls its method.
    pub method: &'a str,
    /// What was chosen of the method.
    pub chosen: Vec<(&'a str, String)>,
}

impl Card<'_> {
    /// The card; the model is `asked` something by these options.
    pub fn text(&self, asked: &str) -> String {
        let Card { base, method, chosen } = self;
        let base = base.unwrap_or("unknown");
        // A hub takes only its own names there.
        let base_model = if is_hub_name(base) { format!("base_model: {base}\n") } else { String::new() };
        let tag = method.to_lowercase();
        let rows: String = chosen.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
        format!(
            "---\n\
             {base_model}library_name: peft\n\
             pipeline_tag: text-generation\n\
             tags:\n\
             - {tag}\n\
             - wgtune\n\
             ---\n\
             \n\
             # {method} adapter\n\
             \n\
             Of `{base}`, trained with wgtune {version}.\n\
             \n\
             | | |\n\
             |---|---|\n\
             {rows}\
             \n\
             With wgtune, where `BASE` is the folder of the base model:\n\
             \n    wgtune generate --model BASE --adapter . {asked}\n\
             \n\
             With PEFT:\n\
             \n    from transformers import AutoModelForCausalLM\n    \
             from peft import PeftModel\n    \
             model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"{base}\"), \".\")\n",
            version = env!("CARGO_PKG_VERSION"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_hub_is_told_from_a_path() {
        for name in ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b_c.d"] {
            assert!(is_hub_name(name), "{name}");
        }
        for path in ["model", "./model", "../a", "/models/llama", "a/b/c", "a/", "/a", "C:/models", "a b/c", "~/model", ""] {
            assert!(!is_hub_name(path), "{path}");
        }
    }

    #[test]
    fn a_card_names_a_base_of_a_hub_in_its_metadata_and_any_other_only_in_its_text() {
        let chosen = || vec![("target modules", "q_proj, v_proj".into())];
        let card = |base: &str| Card { base: Some(base), method: "LoRA", chosen: chosen() }.text("--prompt 'Why?'");
        assert!(card("owner/base").starts_with("---\nbase_model: owner/base\nlibrary_name: peft\n"));
        let local = card("/models/base");
        assert!(local.starts_with("---\nlibrary_name: peft\n") && local.contains("Of `/models/base`, "), "{local}");
        assert!(local.contains("| target modules | q_proj, v_proj |"), "{local}");
        assert!(local.contains("generate --model BASE --adapter . --prompt 'Why?'\n"), "{local}");
    }
}
