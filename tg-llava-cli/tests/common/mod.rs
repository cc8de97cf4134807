//! What the tests of the command line share: the program, fixture folders to damage, and what it printed.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use safetensors::tensor::{SafeTensors, TensorView};
use tempfile::TempDir;

/// How long a program may take before its test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Variables without which Open MPI refuses to work for root, as tests are in a container.
pub const AS_ROOT: [(&str, &str); 2] =
    [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")];

/// The program, without anything that a user's environment may add.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
    for name in ["COLUMNS", "RUST_BACKTRACE", "TG_LLAVA_WEIGHTS"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        command.env_remove(name);
    }
    command.envs(AS_ROOT).timeout(PATIENCE);
    command
}

/// A program that goes on while the test does, and ends with the test, also where that fails.
pub struct Running(pub Child);

impl Running {
    /// Starts `command`.
    pub fn start(command: &mut std::process::Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it still runs after {} seconds", PATIENCE.as_secs());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `chat` on a device that every machine has.
pub fn chat(model: &Path) -> Command {
    let mut command = program();
    command.args(["chat", "--max-new-tokens", "12"]).args(device()).arg("--model").arg(model);
    command
}

/// The flags for the device of this build that is most likely to work anywhere.
pub fn device() -> [&'static str; 2] {
    let built = [("flex", cfg!(feature = "flex")), ("ndarray", cfg!(feature = "ndarray"))];
    ["--device", built.into_iter().find(|(_, built)| *built).map_or("wgpu", |(name, _)| name)]
}

/// A folder under the workspace's fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A photograph.
pub fn photo() -> PathBuf {
    fixture("models/vicuna-tiny/photo.png")
}

/// A copy of a model case to damage: what `chat` needs, and no golden data.
pub fn copy_of(case: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = fixture("models").join(case);
    for (from, to) in
        [(from.clone(), dir.path().to_path_buf()), (from.join("clip-tower"), dir.path().join("clip-tower"))]
    {
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let golden =
                ["golden", "grads", "train", "generation.", "meta"].iter().any(|g| name.starts_with(g));
            if path.is_file() && !golden {
                std::fs::copy(&path, to.join(name)).unwrap();
            }
        }
    }
    dir
}

/// A tensor of a file that is rewritten.
pub struct Stored {
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Rewrites a safetensors file after `change`, which may remove, add and alter f32 tensors.
pub fn rewrite(file: &Path, change: impl FnOnce(&mut HashMap<String, Stored>)) {
    let bytes = std::fs::read(file).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: HashMap<String, Stored> = read
        .iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32)
        .map(|(key, view)| {
            (key.to_owned(), Stored { shape: view.shape().to_vec(), bytes: view.data().to_vec() })
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(key, tensor)| {
        (key, TensorView::new(safetensors::Dtype::F32, tensor.shape.clone(), &tensor.bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

/// Exit code, stdout and stderr as one text, with `names` in the place of paths.
pub fn outcome(command: &mut Command, names: &[(&Path, &str)]) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out = format!("exit code {}\n", output.status.code().unwrap());
    for (title, text) in [("stdout", text(&output.stdout)), ("stderr", text(&output.stderr))] {
        if !text.is_empty() {
            out += &format!("--- {title}\n{}\n", text.trim_end_matches('\n'));
        }
    }
    for (path, name) in names {
        out = out.replace(path.to_str().unwrap(), name);
    }
    out.replace('\\', "/")
}

/// What a command printed to stdout; it must have ended well.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The first token of the answer to `question`.
pub fn first_token(model: &Path, question: &str) -> i64 {
    let options = tg_llava_core::assistant::AssistantOptions::default();
    let device = tg_llava_cli::device::any().unwrap();
    let assistant = tg_llava_core::assistant::Assistant::load(model, &device, &options, &mut |_| {}).unwrap();
    let mut chat = tg_llava_core::assistant::Chat::new();
    chat.ask(question).unwrap();
    let mut answer = assistant.answer(&chat, &assistant.generate_options()).unwrap();
    answer.next();
    answer.token_ids()[0]
}

/// Makes `token` one that ends answers, by generation_config.json.
pub fn end_with(model: &Path, token: i64) {
    let config = serde_json::json!({ "eos_token_id": [2, token] });
    std::fs::write(model.join("generation_config.json"), config.to_string()).unwrap();
}
