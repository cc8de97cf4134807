//! The program `tg-llava-cli`; everything it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tg_llava_cli::main()
}
