//! Every `tests/golden/cli/NAME.json` is an answer of the daemon; `NAME.txt` is what people see of it, and how `status`
//! judges it. The JSON files also pin the schema: a field that was renamed no longer parses. Each is what the daemon says
//! of the page's scene (`scenes_test.rs`). `REWRITE=1` rewrites both; review the difference.

use super::{history, incident, plan, scenes_test, status};
use crate::api::admin::Response;
use crate::cli::health::health;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli")
}

fn shown(answer: &Response) -> String {
    match answer {
        Response::Status(page) => {
            let (word, reasons) = health(page, false);
            format!("{}\n-- {word:?}: {}\n", status(page), reasons.join("; "))
        }
        Response::History { incidents } => history(incidents),
        Response::Incident(report) => incident(report),
        Response::Plan { steps, checks } => plan(steps, checks),
        other => panic!("no text of its own: {other:?}"),
    }
}

/// As the files are written: indented by one.
fn json_text(answer: &Response) -> String {
    let mut text = Vec::new();
    let mut out =
        serde_json::Serializer::with_formatter(&mut text, serde_json::ser::PrettyFormatter::with_indent(b" "));
    serde::Serialize::serialize(answer, &mut out).expect("plain data");
    String::from_utf8(text).expect("JSON is text") + "\n"
}

/// The pages in the folder, each of the schema.
fn written() -> BTreeMap<String, Response> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(folder()).expect("the golden folder is part of the repository") {
        let json = entry.expect("a readable folder").path();
        if json.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&json).expect("a readable file");
        let answer: Response = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", json.display()));
        let again: serde_json::Value = serde_json::to_value(&answer).expect("serializable");
        let before: serde_json::Value = serde_json::from_str(&text).expect("it parsed above");
        assert_eq!(again, before, "{}: a field is not part of the schema", json.display());
        pages.insert(json.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned(), answer);
    }
    pages
}

#[test]
fn answers_are_shown_as_the_golden_texts_say() {
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut wrong = Vec::new();
    let mut check = |file: PathBuf, is_so: bool, now: String| match (is_so, rewrite) {
        (true, _) => {}
        (false, true) => fs::write(&file, now).expect("a writable folder"),
        (false, false) => wrong.push(format!("{}: it is now\n{now}", file.display())),
    };
    let mut pages = written();
    let scenes = scenes_test::answers_of_scenes();
    for page in pages.keys() {
        assert!(scenes.iter().any(|(name, _)| name == page), "{page}: its scene is missing");
    }
    for (page, answer) in scenes {
        let json = folder().join(page).with_extension("json");
        check(json, pages.get(page) == Some(&answer), json_text(&answer));
        pages.insert(page.to_owned(), answer);
    }
    for (page, answer) in &pages {
        let (golden, now) = (folder().join(page).with_extension("txt"), shown(answer));
        check(golden.clone(), fs::read_to_string(golden).unwrap_or_default() == now, now);
    }
    assert!(pages.len() >= 5, "only {} golden files were found", pages.len());
    assert!(wrong.is_empty(), "REWRITE=1 accepts what follows\n{}", wrong.join("\n"));
}
