//! YAML, read strictly: no key twice, none unknown, and a text is a text.

use serde::de::DeserializeOwned;

use crate::mask::Mask;
use crate::problem::Problem;

/// Reads a document. `numbers_are_texts` says whether a number where a text is wanted becomes one, as Go's readers have
/// it, or is refused, as cloud-init does.
pub(crate) fn read<T: DeserializeOwned>(text: &str, numbers_are_texts: bool) -> Result<T, Problem> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        no_schema: !numbers_are_texts,
    };
    // Without the lines around it: they could hold a secret.
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let said = error.without_snippet().to_string();
        Problem::Structure(Mask::of(text).apply(&said))
    })
}
