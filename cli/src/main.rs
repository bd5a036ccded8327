//! The program. All of it is the library, so that it is compiled beside those that it stands on: a program waits for them.

fn main() -> std::process::ExitCode {
    wgtune_cli::run()
}
