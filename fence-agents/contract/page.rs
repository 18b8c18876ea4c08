//! What an agent prints about itself: help, manual page, metadata. All from one table of options.
//!
//! Not here: the metadata that `-o metadata` prints. That is the golden file beside each agent; a test holds it to
//! [`metadata`].

use super::{Kind, Opt, Spec};
use std::fmt::Write;

/// `-o, --action=[action]`: how the option is written on a command line; empty for a secret.
fn getopt(option: &Opt) -> String {
    if option.kind == Kind::Secret {
        return String::new();
    }
    let short = option.short.map(|c| format!("-{c}, ")).unwrap_or_default();
    let value = match option.kind {
        Kind::Boolean => String::new(),
        Kind::Second => "=[seconds]".to_owned(),
        _ => format!("=[{}]", option.name),
    };
    format!("{short}--{}{value}", option.name.replace('_', "-"))
}

/// What `--help` prints.
pub fn help(spec: &Spec) -> String {
    let actions: Vec<&str> = spec.actions.iter().map(|a| a.word()).collect();
    let mut text = format!("Usage: {} [options]\n\n{}\n\n", spec.name, spec.longdesc);
    text.push_str("Without arguments, options are read as name=value lines from standard input.\n");
    let _ = writeln!(text, "Actions: {}\n\nOptions:", actions.join(", "));
    for option in spec.all() {
        let left = match getopt(option) {
            form if form.is_empty() => format!("{}= on standard input only", option.name),
            form => form,
        };
        let default = option.default.map(|d| format!(" (default {d})")).unwrap_or_default();
        let _ = writeln!(text, "  {left}\n        {}{default}", option.about);
    }
    text.push_str("\nExit status: 0 done, or on; 2 status found it off; 1 everything else.");
    text
}

/// What `-o manpage` prints: a page for `man -l`.
pub fn manpage(spec: &Spec) -> String {
    let roff = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut text =
        format!(".TH {} 8\n.SH NAME\n{} \\- {}\n", spec.name.to_uppercase(), spec.name, roff(spec.shortdesc));
    let _ = write!(text, ".SH DESCRIPTION\n{}\n.SH OPTIONS\n", roff(spec.longdesc));
    for option in spec.all() {
        let _ = write!(text, ".TP\n.B {} {}\n{}\n", option.name, roff(&getopt(option)), roff(option.about));
        if let Some(default) = option.default {
            let _ = writeln!(text, "(default {})", roff(default));
        }
    }
    text.push_str(".SH ACTIONS\n");
    for action in spec.actions {
        let _ = write!(text, ".TP\n.B {}\n", roff(action.word()));
    }
    text.push_str(".SH EXIT STATUS\n0 done, or on; 2 status found it off; 1 everything else.\n");
    text
}

/// The metadata that the table of options amounts to.
#[cfg(test)]
pub fn metadata(spec: &Spec) -> String {
    let xml = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let mut text = String::from("<?xml version=\"1.0\" ?>\n");
    let _ = writeln!(text, "<resource-agent name=\"{}\" shortdesc=\"{}\">", spec.name, xml(spec.shortdesc));
    let _ = writeln!(text, "<longdesc>{}</longdesc>\n<vendor-url></vendor-url>\n<parameters>", xml(spec.longdesc));
    for option in spec.all() {
        let kind = match option.kind {
            Kind::Text | Kind::Secret => "string",
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Second => "second",
        };
        let required = u8::from(option.required || option.name == "action");
        let default = option.default.map(|d| format!(" default=\"{}\"", xml(d))).unwrap_or_default();
        let obsoletes = option.old.map(|o| format!(" obsoletes=\"{o}\"")).unwrap_or_default();
        let mut one = |name: &str, required: u8, mark: &str| {
            let _ = writeln!(text, "\t<parameter name=\"{name}\" unique=\"0\" required=\"{required}\"{mark}>");
            let _ = writeln!(text, "\t\t<getopt mixed=\"{}\" />", xml(&getopt(option)));
            let _ = writeln!(text, "\t\t<content type=\"{kind}\"{default} />");
            let _ = writeln!(text, "\t\t<shortdesc lang=\"en\">{}</shortdesc>\n\t</parameter>", xml(option.about));
        };
        one(option.name, required, &obsoletes);
        if let Some(old) = option.old {
            one(old, 0, " deprecated=\"1\"");
        }
    }
    text.push_str("</parameters>\n<actions>\n");
    for action in spec.actions {
        let mark = if *action == super::Action::On { " automatic=\"0\"" } else { "" };
        let _ = writeln!(text, "\t<action name=\"{}\"{mark} />", action.word());
    }
    text.push_str("</actions>\n</resource-agent>\n");
    text
}
