//! Pictures from files of any name and kind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

use common::{chat, fixture, photo, stdout};

#[test]
fn a_name_need_not_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsStr::from_bytes(b"caf\xe9.png"));
    std::fs::copy(photo(), &path).unwrap();
    let ask = |path| {
        stdout(
            chat(&fixture("models/vicuna-tiny")).arg("--image").arg(path).args(["What is this?", "--json"]),
        )
    };
    let answer = |line: String| line.split(",\"seconds\"").next().map(str::to_owned);
    assert_eq!(answer(ask(path)), answer(ask(photo())));
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), folder.path()] {
        let output =
            chat(&fixture("models/vicuna-tiny")).arg("--image").arg(path).arg("Hi").output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(path.to_str().unwrap()) && message.contains("not a file"), "{message}");
    }
}
