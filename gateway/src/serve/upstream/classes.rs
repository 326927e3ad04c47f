//! The classes of a model's requests, each with a twin that never spills.

use tower_spillover::smart_fallback::Class;

use crate::config::Model;

/// The name of the class like `class` that never spills, or of the one like requests without a
/// class. Configured names have no spaces, so it is unique.
pub(crate) fn never_spilling(class: Option<&str>) -> String {
    format!("{} no-spill", class.unwrap_or_default())
}

pub(crate) fn classes(model: &Model) -> impl Iterator<Item = Class> + '_ {
    let configured = model.classes.iter().flat_map(|(name, class)| {
        let like_it = |name: String| {
            let mut like_it = Class::new(name).rank(class.rank);
            if let Some(max_wait) = class.max_wait {
                like_it = like_it.max_wait(max_wait);
            }
            like_it
        };
        let plain = like_it(name.clone());
        [
            if class.spills { plain } else { plain.never_spill() },
            like_it(never_spilling(Some(name))).never_spill(),
        ]
    });
    configured.chain([Class::new(never_spilling(None)).never_spill()])
}
