//! From a parsed TOML document to raw tables: types and unknown keys, all problems of a file at once.
//!
//! serde would stop at the first error, so each raw type reads itself through [`Value`] and goes on after a problem.
//! Not here: which tables and keys there are (`raw.rs`), and any rule that concerns more than one value.

use super::problem::{Problems, suggest};
use crate::types::Quoted;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// No time in a file may be longer than this: sums of times then cannot overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What can be read from one TOML value. `None` = a problem was added.
pub(super) trait Value: Sized {
    /// What an operator should have written, for the error.
    const EXPECTED: &'static str;

    /// Reads a value whose type is right; `None` = wrong type or form.
    fn read(value: &DeValue<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Self>;
}

/// Reads one value and says what is wrong with it.
pub(super) fn read<T: Value>(value: &Spanned<DeValue<'_>>, key: &str, problems: &mut Problems<'_>) -> Option<T> {
    let before = problems.count();
    let read = T::read(value.get_ref(), key, problems);
    if read.is_none() && problems.count() == before {
        let found = describe(value.get_ref());
        problems.add_at(value.span().start, key, format!("expected {}, found {found}", T::EXPECTED), None);
    }
    read
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => Quoted(text).to_string(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Notes where every key of a table stands, and adds a problem for each key that is not one of `known`.
pub(super) fn note_keys(table: &DeTable<'_>, path: &str, known: Option<&[&str]>, problems: &mut Problems<'_>) {
    for (key, value) in table {
        let name = join(path, key.get_ref());
        // A scalar is shown where its value stands, a table where its name stands.
        let offset = if value.get_ref().is_table() { key.span().start } else { value.span().start };
        problems.place(&name, offset);
        if let Some(known) = known
            && !known.contains(&key.get_ref().as_ref())
        {
            let hint = suggest(key.get_ref(), known.iter().copied());
            problems.add_at(key.span().start, &name, "unknown key".to_owned(), Some(hint));
        }
    }
}

/// Reads one key of a table, if it is there.
pub(super) fn field<T: Value>(table: &DeTable<'_>, path: &str, name: &str, problems: &mut Problems<'_>) -> Option<T> {
    let (_, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    read(value, &join(path, name), problems)
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The operator's own names, each with a value: `[nodes.NAME]`, `options = { NAME = "…" }`.
impl<T: Value> Value for BTreeMap<String, T> {
    const EXPECTED: &'static str = "a table";

    fn read(value: &DeValue<'_>, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let table = value.as_table()?;
        note_keys(table, path, None, problems);
        let mut all = BTreeMap::new();
        for (key, value) in table {
            if let Some(item) = read(value, &join(path, key.get_ref()), problems) {
                all.insert(key.get_ref().to_string(), item);
            }
        }
        Some(all)
    }
}

/// Lists; the items' paths count from 1.
impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn read(value: &DeValue<'_>, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let mut all = Vec::new();
        for (index, item) in value.as_array()?.iter().enumerate() {
            let path = format!("{path}[{}]", index + 1);
            problems.place(&path, item.span().start);
            all.extend(read(item, &path, problems));
        }
        Some(all)
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl Value for u64 {
    const EXPECTED: &'static str = "a whole number, not negative";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        let number = value.as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn read(value: &DeValue<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Self> {
        u64::read(value, key, problems).and_then(|n| n.try_into().ok())
    }
}

impl Value for u16 {
    const EXPECTED: &'static str = "a port from 1 to 65535";

    fn read(value: &DeValue<'_>, key: &str, problems: &mut Problems<'_>) -> Option<Self> {
        u64::read(value, key, problems).and_then(|n| n.try_into().ok()).filter(|port| *port > 0)
    }
}

impl Value for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return None,
        };
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(PathBuf::from)
    }
}

impl Value for IpAddr {
    const EXPECTED: &'static str = "an IPv4 or IPv6 address in quotes, as in \"10.0.1.11\" (not a name: names need a \
                                    resolver, which fails together with the network)";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        // One of IPv4 in the dress of IPv6 is that one: it is told, listened on and compared so.
        value.as_str()?.parse().ok().map(|address: IpAddr| address.to_canonical())
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a time of at least 1ms and at most 24h, as in \"200ms\", \"1s\", \"2m\" or \"1h\"";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        parse_duration(value.as_str()?).filter(|d| !d.is_zero())
    }
}

/// A time that may be zero, where zero means never.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrNever(pub(super) Duration);

impl Value for OrNever {
    const EXPECTED: &'static str = "a time of at most 24h, as in \"1m\", or \"0s\" for never";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        parse_duration(value.as_str()?).map(OrNever)
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) u64);

impl Value for Bytes {
    const EXPECTED: &'static str = "a size, as in \"16MiB\" (units: B, KiB, MiB, GiB, TiB)";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        let (number, unit) = number_and_unit(value.as_str()?)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Bytes)
    }
}

/// A text, a number or a truth value, kept as text: options of agents, parameters of a database.
#[derive(Clone, Debug)]
pub(super) struct Scalar(pub(super) String);

impl Value for Scalar {
    const EXPECTED: &'static str = "a text, a number, true or false, on one line";

    fn read(value: &DeValue<'_>, _: &str, _: &mut Problems<'_>) -> Option<Self> {
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(yes) => yes.to_string(),
            _ => return None,
        };
        // Options travel as lines of key=value, parameters as lines of a file: a line break would be an injection.
        (!text.contains(['\n', '\r', '\0'])).then_some(Scalar(text))
    }
}

/// Implements [`Value`] for an enum that is written as one of a few words.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:expr),+ $(,)?) => {
        impl $crate::config::read::Value for $type {
            const EXPECTED: &'static str = $expected;

            fn read(
                value: &toml::de::DeValue<'_>,
                key: &str,
                problems: &mut $crate::config::problem::Problems<'_>,
            ) -> Option<Self> {
                let given = value.as_str()?;
                $(if given == $word {
                    return Some($value);
                })+
                if let Some(hint) = $crate::config::problem::did_you_mean(given, &[$($word),+]) {
                    problems.add_hint(key, format!("expected {}, found {}", $expected, $crate::types::Quoted(given)), hint);
                }
                None
            }
        }
    };
}
pub(super) use words;

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit).map(Duration::from_millis).filter(|d| *d <= LONGEST)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// A hash of everything in a document but its top-level `node`: comments, order and layout do not count. Two hosts
/// with the same value were given the same configuration. FNV-1a, because it must be the same in every build.
pub(super) fn fingerprint(document: &DeTable<'_>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    mix_table(document, true, &mut hash);
    hash
}

fn mix(bytes: &[u8], hash: &mut u64) {
    // The end mark keeps "ab","c" apart from "a","bc".
    for byte in bytes.iter().chain(&[0xff]) {
        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

fn mix_table(table: &DeTable<'_>, top: bool, hash: &mut u64) {
    let mut entries: Vec<(&str, &DeValue<'_>)> =
        table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        if !(top && key == "node") {
            mix(key.as_bytes(), hash);
            mix_value(value, hash);
        }
    }
    mix(b"end of table", hash);
}

fn mix_value(value: &DeValue<'_>, hash: &mut u64) {
    mix(value.type_str().as_bytes(), hash);
    match value {
        DeValue::Table(table) => mix_table(table, false, hash),
        DeValue::Array(items) => {
            items.iter().for_each(|item| mix_value(item.get_ref(), hash));
            mix(b"end of array", hash);
        }
        DeValue::String(text) => mix(text.as_bytes(), hash),
        DeValue::Datetime(date) => mix(date.to_string().as_bytes(), hash),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => mix(describe(value).as_bytes(), hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        for (text, ms) in [("200ms", 200), ("1s", 1_000), ("2m", 120_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "1", "s", "-1s", "1.5s", "1S", "1 day", "25h", "99999999999999999999s", "1s1ms"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_fingerprint_sees_values_and_not_layout() {
        let of = |text: &str| fingerprint(DeTable::parse(text).expect("TOML").get_ref());
        let one = of("cluster = \"a\"\nnode = \"db1\"\n[nodes]\ndb1 = { x = 1 }\n");
        assert_eq!(one, of("# said\nnode = \"db2\"\ncluster = \"a\"\n\n[nodes.db1]\nx = 1"), "layout counted");
        assert_eq!(one, of("cluster = \"a\"\n[nodes.db1]\nx = 1"), "the absent node counted");
        assert_ne!(one, of("cluster = \"a\"\n[nodes.db1]\nx = 2"));
        assert_ne!(one, of("cluster = \"a\"\n[nodes.db1]\nx = \"1\""));
        assert_ne!(of("a = [[1], 2]"), of("a = [[1, 2]]"));
    }
}
