//! How an agent is asked: `name=value` lines on standard input, or a command line when there is one.
//!
//! Not here: defaults of the action. There are none: an input that was cut off, or is empty, names no action and is
//! refused.

use super::{Action, Kind, Opt, Request, Spec};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

/// Names and values as they were given, under the names of today.
pub type Given = BTreeMap<&'static str, String>;

/// A larger input is no list of options.
const INPUT_MAX: u64 = 256 * 1024;

/// A request that cannot be carried out as it was written.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("standard input cannot be read")]
    Unreadable { source: std::io::Error },
    #[error("standard input is longer than {INPUT_MAX} bytes: expected name=value lines")]
    TooLong,
    #[error("no action was given: write action=off (or another of {actions}) on standard input, or use --action")]
    NoAction { actions: String },
    #[error("action {given:?} is not one of {actions}")]
    UnknownAction { given: String, actions: String },
    #[error("option {name:?} is not known on the command line; --help lists the options")]
    UnknownArgument { name: String },
    #[error("option --{name} needs a value")]
    NoValue { name: &'static str },
    #[error(
        "--{name} is refused: everybody on this host can read a command line; use --{name}-file or --{name}-script"
    )]
    SecretArgument { name: &'static str },
    #[error("option {name} is needed for this action: {about}")]
    Missing { name: &'static str, about: &'static str },
    #[error("option {name} is {given:?}: expected {expected}")]
    BadValue { name: &'static str, given: String, expected: &'static str },
}

/// Reads the command line if there is one, else standard input. Also returns warnings.
pub fn read(spec: &Spec, arguments: &[String]) -> Result<(Given, Vec<String>), InputError> {
    if !arguments.is_empty() {
        return Ok((from_arguments(spec, arguments)?, Vec::new()));
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(INPUT_MAX + 1).read_to_end(&mut bytes).map_err(|source| InputError::Unreadable { source })?;
    if bytes.len() as u64 > INPUT_MAX {
        return Err(InputError::TooLong);
    }
    Ok(from_lines(spec, &String::from_utf8_lossy(&bytes)))
}

/// Lines that begin with '#' are comments, unknown names are ignored with a warning, the last of several wins.
fn from_lines(spec: &Spec, text: &str) -> (Given, Vec<String>) {
    let mut given = Given::new();
    let mut warnings = Vec::new();
    for line in text.lines() {
        let line = line.trim_start().trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            None => warnings.push("a line without '=' on standard input is ignored".to_owned()),
            Some((name, value)) => match spec.find(name) {
                None => warnings.push(format!("option {name:?} is not known, and ignored")),
                Some(option) => {
                    given.insert(option.name, value.to_owned());
                }
            },
        }
    }
    (given, warnings)
}

/// `--name=value`, `--name value`, `-n value`, `-nvalue`; a boolean needs no value.
fn from_arguments(spec: &Spec, arguments: &[String]) -> Result<Given, InputError> {
    let mut given = Given::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (option, attached) = find_argument(spec, argument)?;
        if option.kind == Kind::Secret {
            return Err(InputError::SecretArgument { name: option.name });
        }
        let value = match (attached, option.kind) {
            (Some(value), _) => value,
            (None, Kind::Boolean) => "1".to_owned(),
            (None, _) => rest.next().cloned().ok_or(InputError::NoValue { name: option.name })?,
        };
        given.insert(option.name, value);
    }
    Ok(given)
}

/// The option that an argument names, and the value that is attached to it.
fn find_argument(spec: &Spec, argument: &str) -> Result<(&'static Opt, Option<String>), InputError> {
    let unknown = || InputError::UnknownArgument {
        // Only the name: what follows may be a secret.
        name: argument.split('=').next().unwrap_or_default().to_owned(),
    };
    if let Some(long) = argument.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let option = spec.find(&name.replace('-', "_")).ok_or_else(unknown)?;
        return Ok((option, value));
    }
    let mut letters = argument.strip_prefix('-').ok_or_else(unknown)?.chars();
    let letter = letters.next().ok_or_else(unknown)?;
    let option = spec
        .all()
        .find(|o| o.short == Some(letter))
        .ok_or_else(|| InputError::UnknownArgument { name: format!("-{letter}") })?;
    let attached = Some(letters.as_str().to_owned()).filter(|v| !v.is_empty());
    Ok((option, attached))
}

/// Turns what was given into a request, or says what is wrong with it.
pub fn check(spec: &Spec, mut given: Given) -> Result<Request, InputError> {
    let actions = || spec.actions.iter().map(|a| a.word()).collect::<Vec<_>>().join(", ");
    let word =
        given.remove("action").filter(|w| !w.is_empty()).ok_or_else(|| InputError::NoAction { actions: actions() })?;
    let action = *spec
        .actions
        .iter()
        .find(|a| a.word().eq_ignore_ascii_case(&word))
        .ok_or_else(|| InputError::UnknownAction { given: word, actions: actions() })?;
    for option in spec.all().filter(|o| o.name != "action") {
        if let Some(value) = given.get(option.name).filter(|v| !v.is_empty()) {
            check_value(option, value)?;
        } else if option.required && !matches!(action, Action::Metadata | Action::Manpage) {
            return Err(InputError::Missing { name: option.name, about: option.about });
        } else if let Some(default) = option.default {
            given.insert(option.name, default.to_owned());
        }
    }
    Ok(Request { action, values: given })
}

fn check_value(option: &Opt, value: &str) -> Result<(), InputError> {
    let (good, expected) = match option.kind {
        Kind::Text | Kind::Secret => (true, ""),
        Kind::Boolean => (boolean(value).is_some(), "1, 0, true, false, yes, no, on or off"),
        Kind::Integer => (value.parse::<u32>().is_ok(), "a whole number"),
        Kind::Second => (seconds(value).is_some(), "a number of seconds, such as 20 or 0.5"),
    };
    if good { Ok(()) } else { Err(InputError::BadValue { name: option.name, given: value.to_owned(), expected }) }
}

/// The words for true and false that the ecosystem uses.
pub fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Seconds, with an optional `s` behind them, up to one day.
pub fn seconds(value: &str) -> Option<Duration> {
    let number: f64 = value.strip_suffix('s').unwrap_or(value).parse().ok()?;
    (0.0..=86_400.0).contains(&number).then(|| Duration::from_secs_f64(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        name: "fence_test",
        shortdesc: "",
        longdesc: "",
        options: &[
            Opt { short: Some('a'), old: Some("ipaddr"), required: true, ..Opt::text("ip", "where") },
            Opt { kind: Kind::Secret, old: Some("passwd"), ..Opt::text("password", "") },
            Opt { short: Some('P'), kind: Kind::Boolean, ..Opt::text("lanplus", "") },
            Opt { kind: Kind::Second, default: Some("20"), ..Opt::text("power_timeout", "") },
        ],
        actions: &[Action::Off, Action::Metadata],
        metadata: "",
    };

    fn arguments(line: &str) -> Result<Given, InputError> {
        from_arguments(&SPEC, &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn lines_are_read_as_the_api_says() {
        let (given, warnings) =
            from_lines(&SPEC, "# a comment\naction=off\nip=1\n  ipaddr=a=b\nno_such=1\nlost\npassword= a\"b \n");
        assert_eq!(given["ip"], "a=b", "an old name, the last one, cut at the first '='");
        assert_eq!(given["password"], " a\"b ", "values are taken as they are");
        assert_eq!(warnings.len(), 2);
        assert!(check(&SPEC, given).is_ok());
    }

    #[test]
    fn an_input_without_an_action_is_refused() {
        for text in ["", "\n", "ip=1\n", "action=\nip=1\n"] {
            let (given, _) = from_lines(&SPEC, text);
            assert!(matches!(check(&SPEC, given), Err(InputError::NoAction { .. })), "{text:?}");
        }
    }

    #[test]
    fn arguments_have_long_and_short_forms() {
        for line in ["--action=off --ip=b -P", "--action off -a b --lanplus", "-o off -ab --lanplus=yes"] {
            let request = check(&SPEC, arguments(line).expect(line)).expect(line);
            assert_eq!((request.text("ip"), request.flag("lanplus")), (Some("b"), true), "{line}");
            assert_eq!(request.seconds("power_timeout"), Duration::from_secs(20));
        }
    }

    #[test]
    fn bad_requests_name_what_is_wrong() {
        let error = |line: &str| match arguments(line).and_then(|given| check(&SPEC, given)) {
            Ok(_) => panic!("{line} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error("--action=explode --ip=b").contains("\"explode\" is not one of off, metadata"));
        assert!(error("--action=off").contains("option ip is needed"));
        assert!(error("--action=off --ip=b --power-timeout=soon").contains("\"soon\": expected a number of seconds"));
        assert!(error("--nonsense=1").contains("\"--nonsense\" is not known"));
        assert!(error("--action").contains("needs a value"));
        let secret = error("--action=off --password=hunter2");
        assert!(secret.contains("--password-file") && !secret.contains("hunter2"), "{secret}");
    }
}
