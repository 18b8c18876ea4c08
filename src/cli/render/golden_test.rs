//! Every `tests/golden/cli/NAME.json` is an answer of the daemon; `NAME.txt` is what people see of it, and how `status`
//! judges it. The JSON files also pin the schema: a field that was renamed no longer parses. What is a judgement in them
//! (readiness, a dry run) is what the daemon says of the page's scene (`scenes_test.rs`). `REWRITE=1` rewrites both;
//! review the difference.

use super::{history, incident, plan, scenes_test, status};
use crate::api::admin::Response;
use crate::cli::health::health;
use std::fs;
use std::path::Path;

fn shown(answer: &Response) -> String {
    match answer {
        Response::Status(page) => {
            let (word, reasons) = health(page);
            format!("{}\n-- {word:?}: {}\n", status(page), reasons.join("; "))
        }
        Response::History { incidents } => history(incidents),
        Response::Incident(report) => incident(report),
        Response::Plan { steps, checks } => plan(steps, checks),
        other => panic!("no text of its own: {other:?}"),
    }
}

/// The answer with the judgement that belongs to its scene.
fn judged(page: &str, answer: &Response) -> Response {
    let scene = scenes_test::of(page);
    match (answer.clone(), scene) {
        (Response::Status(mut status), Some(scene)) => {
            for (name, service) in &mut status.services {
                service.readiness = scene.readiness(name);
            }
            Response::Status(status)
        }
        (Response::Plan { .. }, Some(scene)) => scene.dry_run(),
        (Response::Status(_) | Response::Plan { .. }, None) => panic!("{page}: its scene is missing in scenes_test.rs"),
        (other, _) => other,
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

#[test]
fn answers_are_shown_as_the_golden_texts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli");
    let rewrite = std::env::var_os("REWRITE").is_some();
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(&folder).expect("the golden folder is part of the repository") {
        let json = entry.expect("a readable folder").path();
        if json.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&json).expect("a readable file");
        let answer: Response = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", json.display()));
        let again: serde_json::Value = serde_json::to_value(&answer).expect("serializable");
        let before: serde_json::Value = serde_json::from_str(&text).expect("it parsed above");
        assert_eq!(again, before, "{}: a field is not part of the schema", json.display());
        let page = json.file_stem().and_then(|stem| stem.to_str()).expect("a plain name");
        let right = judged(page, &answer);
        if rewrite && right != answer {
            fs::write(&json, json_text(&right)).expect("a writable folder");
        } else if right != answer {
            wrong.push(format!("{}: it is now\n{}", json.display(), json_text(&right)));
        }
        let answer = right;
        let golden = json.with_extension("txt");
        let now = shown(&answer);
        if rewrite {
            fs::write(&golden, &now).expect("a writable folder");
        } else if fs::read_to_string(&golden).unwrap_or_default() != now {
            wrong.push(format!("{}: it is now\n{now}", golden.display()));
        }
    }
    assert!(seen >= 5, "only {seen} golden files were found");
    assert!(wrong.is_empty(), "REWRITE=1 accepts what follows\n{}", wrong.join("\n"));
}
