//! The pages of the documentation lead to what exists.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_link_between_pages_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    markdown(root, &mut pages);
    assert!(pages.len() > 15, "the pages were not found: {pages:?}");
    let broken: Vec<String> = pages.iter().flat_map(|page| broken_links(page)).collect();
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_reason_is_on_the_page_of_the_reasons() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = fs::read_to_string(root.join("src/served/why.rs")).unwrap();
    let page = fs::read_to_string(root.join("docs/reasons.md")).unwrap();
    let labels =
        code.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""));
    let labels: Vec<_> = labels.filter_map(|(_, rest)| rest.strip_suffix("\",")).collect();
    assert!(labels.len() > 20, "{labels:?}");
    let is_missing = |label: &&&str| !page.contains(&format!("`{label}`"));
    let missing: Vec<_> = labels.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/reasons.md lacks {missing:?}");
}

/// Every page below `folder`, but for what is built or installed there.
fn markdown(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        let is_ours = !name.starts_with('.') && name != "target" && name != "node_modules";
        if path.is_dir() && is_ours {
            markdown(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

fn broken_links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let links = without_code(&text);
    let links = links.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    links
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .filter(|link| {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(file) };
            let has_heading = || {
                fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).any(|anchor| anchor == heading))
            };
            !target.exists() || !(heading.is_empty() || has_heading())
        })
        .map(|link| format!("{}: {link}", page.display()))
        .collect()
}

/// Code has brackets of its own.
fn without_code(text: &str) -> String {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    prose.map(|line| line.split('`').step_by(2).collect::<String>() + "\n").collect()
}

/// The anchors of a page's headings, as GitHub and docs.rs make them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}
