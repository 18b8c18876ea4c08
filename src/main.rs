//! The command line, nothing else.

fn main() -> std::process::ExitCode {
    regent::cli::main()
}
