//! Which options of a fence agent hold a secret, by their names: for agents that do not say so themselves, and for the file's
//! check, which asks no agent.

/// Parts of names that mark a secret.
const MARKS: [&str; 7] = ["passw", "passphrase", "secret", "key", "token", "community", "hexadecimal_kg"];

/// Whether an option of this name holds a secret, or names a file or a program that does.
pub fn is_secret_option(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    MARKS.iter().any(|mark| name.contains(mark))
}

/// Whether the secret itself stands in the option.
pub fn is_plain_secret(name: &str, value: &str) -> bool {
    let elsewhere = ["_file", "_script"].into_iter().any(|end| name.ends_with(end)) || value.starts_with('/');
    is_secret_option(name) && !elsewhere && !is_switch(value) && !value.is_empty()
}

/// A value of a boolean option (`ssh_key_only=1`) is no secret, and would mask half of every text.
pub fn is_switch(value: &str) -> bool {
    ["0", "1", "true", "false", "yes", "no", "on", "off"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_file_is_told_from_the_name_of_where_it_is() {
        for (name, value, plain) in [
            ("password", "x", true),
            ("passwd", "x", true),
            ("community", "private", true),
            ("snmp_priv_passwd", "x", true),
            ("password_file", "/etc/regent/bmc.pw", false),
            ("passwd_script", "/usr/local/bin/pw", false),
            ("identity_key", "/etc/regent/id", false),
            ("ssh_key_only", "1", false),
            ("ip", "10.0.0.1", false),
        ] {
            assert_eq!(is_plain_secret(name, value), plain, "{name}");
        }
    }
}
