//! `chat` on a terminal.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Running, device, fixture};
use nix::pty::{Winsize, openpty};

/// Types `keys` at the first prompt of a conversation; what the terminal showed, and the exit code.
fn type_at_the_prompt(keys: &[u8], home: &Path) -> (String, i32) {
    let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let end = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
    command.args(["chat", "--max-new-tokens", "2", "--model"]).arg(fixture("models/vicuna-tiny"));
    command.args(device()).env("TERM", "xterm").env("HOME", home).env("XDG_DATA_HOME", home);
    let mut child = Running::start(command.stdin(end()).stdout(end()).stderr(end()));
    // The command holds the terminal open as well.
    drop((command, terminal.slave));
    let mut master = File::from(terminal.master);
    let shown = watch(master.try_clone().unwrap());
    let mut all = Vec::new();
    let mut until = |wanted: &[u8]| {
        while let Ok(bytes) = shown.recv_timeout(Duration::from_secs(60)) {
            all.extend(bytes);
            if !wanted.is_empty() && all.windows(wanted.len()).any(|part| part == wanted) {
                return;
            }
        }
    };
    until(b"> ");
    master.write_all(keys).unwrap();
    until(b"");
    let code = child.wait().code().unwrap();
    (String::from_utf8_lossy(&all).into_owned(), code)
}

/// What a terminal shows, until it closes.
fn watch(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Lines that come faster than they are answered are all answered, whether the terminal marks them as pasted or not.
#[test]
fn pasted_lines_are_all_asked() {
    let dir = tempfile::tempdir().unwrap();
    for (name, before, behind) in [("typed.json", "", ""), ("pasted.json", "\x1b[200~", "\x1b[201~")] {
        let file = dir.path().join(name);
        let keys = format!("{before}One?\rTwo?\rThree?\r/save {}{behind}\r/quit\r", file.display());
        let (shown, code) = type_at_the_prompt(keys.as_bytes(), dir.path());
        assert_eq!(code, 0, "{shown}");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{name}: {e}: {shown}"));
        let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
        let turns = saved["conversations"].as_array().unwrap();
        let asked: Vec<_> = turns.iter().step_by(2).map(|turn| turn["value"].as_str().unwrap()).collect();
        assert_eq!(asked, ["One?", "Two?", "Three?"], "{name}: {shown}");
    }
}
