//! The command line, nothing else.

use regent::action::guard;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == "guard" => match guard::parse(arguments) {
            Ok(options) => guard::run(&options),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::from(2)
            }
        },
        _ => ExitCode::SUCCESS,
    }
}
