//! What a fence agent says about itself (`action=metadata`), as far as regent needs it. Pure.
//!
//! A tolerant scan over the tags, not an XML parser: agents in the field print documents that no strict parser takes,
//! and only names of parameters and actions are wanted. Whatever it does not understand, it skips.

/// What an agent declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The agent's own name.
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// The words of its actions.
    pub actions: Vec<String>,
}

/// One declared option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub required: bool,
    pub deprecated: bool,
    /// Its description says that it is a password, a key or the like.
    pub secret: bool,
}

/// Words of a description by which a secret is known; what stands in brackets says how, and not what.
const SECRET_WORDS: [&str; 8] =
    ["password", "passphrase", "secret", "community", "credential", "credentials", "token", "key"];

/// A text that is no agent's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no <resource-agent> with parameters: expected the metadata of a fence agent")]
pub struct NotMetadata;

impl Metadata {
    /// Reads the names out of the document.
    pub fn parse(text: &str) -> Result<Metadata, NotMetadata> {
        let mut found = Metadata::default();
        let mut known = false;
        for (tag, after) in tags(text) {
            let mut words = tag.splitn(2, |c: char| c.is_whitespace() || c == '/');
            let (element, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let name = attribute(rest, "name");
            match (element, name) {
                ("resource-agent", name) => {
                    known = true;
                    found.name = name.unwrap_or_default();
                }
                ("parameter", Some(name)) => found.parameters.push(Parameter {
                    name,
                    required: attribute(rest, "required").as_deref() == Some("1"),
                    deprecated: attribute(rest, "deprecated").as_deref() == Some("1"),
                    secret: is_secret(description(after)),
                }),
                ("action", Some(name)) => found.actions.push(name),
                _ => {}
            }
        }
        if known && !found.actions.is_empty() { Ok(found) } else { Err(NotMetadata) }
    }

    /// Whether an option of this name is declared.
    pub fn knows(&self, option: &str) -> bool {
        self.parameters.iter().any(|p| p.name == option)
    }

    /// Whether this option is declared as a secret.
    pub fn is_secret(&self, option: &str) -> bool {
        self.parameters.iter().any(|p| p.name == option && p.secret)
    }

    /// Whether an action of this word is declared.
    pub fn offers(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action)
    }
}

/// The short description of the parameter whose tag the text comes after.
fn description(after: &str) -> &str {
    let own = after.split("<parameter").next().unwrap_or_default();
    let begun = own.split_once("<shortdesc").and_then(|(_, rest)| rest.split_once('>'));
    begun.map_or("", |(_, rest)| rest.split('<').next().unwrap_or_default())
}

fn is_secret(description: &str) -> bool {
    let outside = description.split('(').enumerate().map(|(i, part)| match i {
        0 => part,
        _ => part.split_once(')').map_or("", |(_, rest)| rest),
    });
    let text = outside.collect::<String>().to_lowercase();
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    words.any(|word| SECRET_WORDS.contains(&word))
}

/// The insides of all opening tags, each with what comes after it; comments and declarations left out.
fn tags(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = match rest.strip_prefix("!--") {
            Some(_) => rest.find("-->").map(|at| at + 3),
            None => end_of_tag(rest),
        };
        let Some(end) = end else { break };
        let tag = &rest[..end];
        if !tag.starts_with(['/', '!', '?']) {
            found.push((tag, &rest[end..]));
        }
        rest = &rest[end..];
    }
    found
}

/// Where the tag ends; a '>' between quotes does not end it.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute, entities resolved.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag;
    loop {
        let (left, right) = rest.split_once('=')?;
        let right = right.trim_start();
        let quote = right.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = right[1..].split_once(quote)?;
        if left.trim() == name {
            let plain = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            return Some(plain.replace("&apos;", "'").replace("&amp;", "&"));
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_agents_print() {
        let text = "<?xml version=\"1.0\" ?>\n<!-- <parameter name=\"ghost\"> -->\n<resource-agent name='fence_x' \
                    shortdesc=\"a > b\" >\n<parameters>\n\t<parameter name=\"ip\" unique=\"0\" required=\"1\" \
                    obsoletes=\"ipaddr\"><getopt mixed=\"-a, --ip=[ip]\" /></parameter>\n<parameter required = '0' \
                    name = 'a&amp;b' deprecated=\"1\"/></parameters><actions><action name=\"on\" automatic=\"0\"/>\
                    <action name=\"off\" /></actions></resource-agent>";
        let metadata = Metadata::parse(text).expect("metadata");
        assert_eq!(metadata.name, "fence_x");
        assert!(metadata.knows("ip") && metadata.knows("a&b") && !metadata.knows("ghost") && !metadata.knows("ipaddr"));
        assert_eq!((metadata.parameters[0].required, metadata.parameters[1].required), (true, false));
        assert!(!metadata.parameters[0].deprecated && metadata.parameters[1].deprecated);
        assert!(metadata.offers("off") && !metadata.offers("of"));
    }

    #[test]
    fn a_secret_is_known_by_what_the_agent_says_of_it() {
        let parameter = |name: &str, about: &str| {
            let content = "<getopt mixed=\"--x=[password]\" /><content type=\"string\"  />";
            format!("<parameter name=\"{name}\">{content}<shortdesc lang=\"en\">{about}</shortdesc></parameter>")
        };
        let told = [
            ("community", "Set the community string", true),
            ("passwd", "Login password or passphrase", true),
            ("hexadecimal_kg", "Hexadecimal-encoded Kg key for IPMIv2 authentication", true),
            ("apitoken", "API Token", true),
            ("auth", "IPMI Lan Auth type (md5, password, or none)", false),
            ("ip", "IP address or hostname of fencing device", false),
            ("bare", "", false),
        ];
        let parameters = told.map(|(name, about, _)| parameter(name, about)).concat();
        let text = format!("<resource-agent name=\"x\">{parameters}<action name=\"off\"/></resource-agent>");
        let metadata = Metadata::parse(&text).expect("metadata");
        for (name, _, secret) in told {
            assert_eq!(metadata.is_secret(name), secret, "{name}");
        }
    }

    #[test]
    fn what_is_no_metadata_is_refused_and_never_panics() {
        let whole = "<resource-agent name=\"é\"><action name=\"off\"/><parameter name=\"x\"/>";
        for text in ["", "<", "Usage: fence_x", "<resource-agent", "<!--", "<a b=\"", "<resource-agent name=\"x\">"] {
            assert_eq!(Metadata::parse(text), Err(NotMetadata), "{text:?}");
        }
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            let _ = Metadata::parse(&whole[..end]);
        }
        assert!(Metadata::parse(whole).is_ok());
    }
}
