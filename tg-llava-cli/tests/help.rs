//! What `--help` says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{outcome, program};

#[test]
fn help_of_every_command() {
    insta::assert_snapshot!("help", outcome(program().arg("--help"), &[]));
    for command in [
        "chat",
        "serve",
        "train",
        "eval",
        "score",
        "merge",
        "report",
        "data",
        "parity",
        "bench",
        "inspect",
        "fetch",
        "convert",
        "completions",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), outcome(program().args([command, "--help"]), &[]));
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&[][..], &["paint"], &["chat", "--nope"], &["parity"], &["chat", "-q", "-v", "Hi"]] {
        program().args(arguments).assert().code(2);
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = common::stdout(program().args(["completions", shell]));
        assert!(script.contains("inspect") && script.contains("guide-turn"), "{shell}");
    }
}
