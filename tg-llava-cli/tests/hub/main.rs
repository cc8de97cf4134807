//! Models by name, from a hub of the test's own into a cache as Hugging Face's Python tools have it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use assert_cmd::Command;
use common::{Running, outcome, stdout};
use server::{Faults, Place, Server, files_of, sha256};
use tempfile::TempDir;

const MODEL: &str = "owner/small";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one model, and a folder for Hugging Face's files.
struct Scene {
    server: Server,
    home: TempDir,
}

impl Scene {
    /// A model of two small files and a large one.
    fn new() -> Self {
        let scene = Self { server: Server::start(), home: tempfile::tempdir().unwrap() };
        scene.server.publish(MODEL, "main", COMMIT, &Self::files("one"));
        scene
    }

    fn files(what: &str) -> [(&'static str, Vec<u8>); 4] {
        [
            ("config.json", format!("{{\"what\": \"{what}\"}}").into_bytes()),
            ("tokenizer.json", b"{}".to_vec()),
            ("README.md", b"not needed".to_vec()),
            ("model.safetensors", what.bytes().cycle().take(100_000).collect()),
        ]
    }

    /// The program, in the scene.
    fn program(&self) -> Command {
        let mut command = common::program();
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.server.endpoint);
        command
    }

    fn fetch(&self, name: &str) -> Command {
        let mut command = self.program();
        command.args(["fetch", name]);
        command
    }

    /// The model's folder in the cache.
    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--small")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// What the program says, with names in the place of what changes.
    fn outcome(&self, command: &mut Command) -> String {
        let names = [(self.home.path(), "HOME"), (Path::new(&self.server.endpoint), "HUB")];
        outcome(command, &names)
    }

    /// Asserts that the model is there and right.
    fn assert_fetched(&self) {
        let weights = std::fs::read(self.snapshot().join("model.safetensors")).unwrap();
        assert_eq!(sha256(&weights), sha256(&Self::files("one")[3].1));
        assert_eq!(std::fs::read_to_string(self.repository().join("refs/main")).unwrap(), COMMIT);
    }
}

/// What a developer may have set.
const VARIABLES: [&str; 11] = [
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HOME",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "XDG_CACHE_HOME",
];

#[test]
fn fetched_files_lie_as_pythons_tools_have_them() {
    let scene = Scene::new();
    let printed = stdout(&mut scene.fetch(MODEL));
    assert_eq!(printed.trim(), scene.snapshot().to_str().unwrap());
    scene.assert_fetched();
    let [config, _, _, weights] = Scene::files("one");
    for (name, etag) in
        [("config.json", &sha256(&config.1)[..40]), ("model.safetensors", &sha256(&weights.1))]
    {
        let target = std::fs::read_link(scene.snapshot().join(name)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(etag));
    }
    let names = |folder: &str| {
        let entries = std::fs::read_dir(scene.repository().join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("refs"), ["main"]);
    assert_eq!(names("snapshots"), [COMMIT]);
    assert_eq!(names(&format!("snapshots/{COMMIT}")), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(names("blobs").len(), 3);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let scene = Scene::new();
    stdout(&mut scene.fetch(MODEL));
    scene.server.seen();
    stdout(&mut scene.fetch(MODEL));
    let seen = scene.server.seen();
    assert_eq!(
        seen.iter().map(|seen| &*seen.path).collect::<Vec<_>>(),
        ["/api/models/owner/small/revision/main"]
    );

    // What the new commit has in common with the old one is not fetched either.
    let mut files = Scene::files("one");
    files[0].1 = b"{\"new\": true}".to_vec();
    let new = COMMIT.replace('0', "f");
    scene.server.publish(MODEL, "main", &new, &files);
    stdout(&mut scene.fetch(MODEL));
    assert!(scene.server.seen().iter().all(|seen| seen.at == Place::Hub));
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/main")).unwrap(), new);
    assert!(scene.snapshot().join("config.json").exists());
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let scene = Scene::new();
    scene.server.fail(Faults { cuts: vec![30_000, 20_000], ..Faults::default() });
    stdout(&mut scene.fetch(MODEL));
    scene.assert_fetched();
    let ranges: Vec<_> =
        scene.server.seen().into_iter().filter(|seen| seen.at == Place::Storage).map(|s| s.range).collect();
    assert_eq!(ranges, [None, Some("bytes=30000-".into()), Some("bytes=50000-".into())]);
}

#[test]
fn a_killed_fetch_goes_on_where_it_was_killed() {
    let scene = Scene::new();
    let [.., (_, weights)] = Scene::files("one");
    let blobs = scene.repository().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&weights))), &weights[..99_990]).unwrap();
    stdout(&mut scene.fetch(MODEL));
    scene.assert_fetched();
    let ranges: Vec<_> = scene.server.seen().into_iter().filter_map(|seen| seen.range).collect();
    assert_eq!(ranges, ["bytes=99990-"; 2], "the hub and the storage behind it");
}

#[test]
fn a_part_of_another_length_begins_anew() {
    let [.., (_, weights)] = Scene::files("one");
    for no_sizes in [false, true] {
        let scene = Scene::new();
        scene.server.fail(Faults { no_sizes, ..Faults::default() });
        let blobs = scene.repository().join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let part = [&weights[..], b"more"].concat();
        std::fs::write(blobs.join(format!("{}.incomplete", sha256(&weights))), part).unwrap();
        stdout(&mut scene.fetch(MODEL));
        scene.assert_fetched();
    }
}

#[test]
fn a_storage_that_cannot_resume_begins_anew() {
    let scene = Scene::new();
    scene.server.fail(Faults { cuts: vec![30_000], no_ranges: true, ..Faults::default() });
    stdout(&mut scene.fetch(MODEL));
    scene.assert_fetched();
}

#[test]
fn wrong_contents_are_refused_and_removed() {
    let scene = Scene::new();
    scene.server.fail(Faults { garbled: true, ..Faults::default() });
    let text = scene.outcome(&mut scene.fetch(MODEL));
    assert!(
        text.starts_with("exit code 1\n")
            && text.contains("model.safetensors of owner/small has another checksum"),
        "{text}"
    );
    assert!(!scene.snapshot().join("model.safetensors").exists());
    assert!(!scene.repository().join("refs/main").exists(), "nothing looks whole");
    scene.server.fail(Faults::default());
    stdout(&mut scene.fetch(MODEL));
    scene.assert_fetched();
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let scene = Scene::new();
    scene.server.fail(Faults { token: Some("secret".into()), ..Faults::default() });
    for with in ["HF_TOKEN", "file"] {
        let _ = std::fs::remove_dir_all(scene.repository());
        let mut command = scene.fetch(MODEL);
        match with {
            "file" => std::fs::write(scene.home.path().join("token"), "secret\n").unwrap(),
            variable => {
                command.env(variable, "secret");
            }
        }
        stdout(&mut command);
        scene.assert_fetched();
        let seen = scene.server.seen();
        assert!(seen.iter().any(|seen| seen.at == Place::Storage));
        for seen in seen {
            let expected = (seen.at == Place::Hub).then(|| "Bearer secret".to_owned());
            assert_eq!(seen.token, expected, "{with}: {seen:?}");
        }
    }
}

#[test]
fn refusals_say_what_to_do() {
    let scene = Scene::new();
    let mut all = String::new();
    let mut step = |title: &str, command: &mut Command| {
        all += &format!("=== {title}\n{}", scene.outcome(command));
    };
    step("no such model", &mut scene.fetch("owner/other"));
    step("no such revision", &mut scene.fetch("owner/small@v9"));
    step("no name", &mut scene.fetch("vicuna-70b"));
    step("chat, no such model", scene.program().args(["chat", "--model", "owner/other", "Hi"]));
    step("offline", scene.fetch(MODEL).env("HF_HUB_OFFLINE", "1"));
    step("chat, offline", scene.program().args(["chat", "--model", MODEL, "Hi"]).env("HF_HUB_OFFLINE", "1"));
    step("an endpoint that is none", scene.fetch(MODEL).env("HF_ENDPOINT", "hub"));
    scene.server.fail(Faults { token: Some("secret".into()), ..Faults::default() });
    step("behind a licence form", &mut scene.fetch(MODEL));
    step("with a token that is not enough", scene.fetch(MODEL).env("HF_TOKEN", "other"));
    scene.server.fail(Faults::default());
    scene.server.publish("owner/empty", "main", COMMIT, &[("config.json", b"{}".to_vec())]);
    step("no weights", &mut scene.fetch("owner/empty"));
    insta::assert_snapshot!("refusals", all);
    assert!(!all.contains("secret"));
}

#[test]
fn a_path_and_an_offline_program_ask_nobody() {
    let scene = Scene::new();
    let missing = scene.home.path().join("owner");
    std::fs::create_dir(&missing).unwrap();
    // Below a folder that is there it is a path.
    let path =
        scene.outcome(scene.program().current_dir(scene.home.path()).args(["chat", "--model", MODEL, "Hi"]));
    assert!(
        path.contains("owner/small: no such folder; it is read as a path since there is ./owner here"),
        "{path}"
    );
    for plain in ["./owner/small", "small", "../owner/small"] {
        let text = scene.outcome(scene.program().args(["chat", "--model", plain, "Hi"]));
        assert!(text.contains("no such folder"), "{text}");
    }
    let text = scene.outcome(scene.program().args(["inspect", MODEL]).env("HF_HUB_OFFLINE", "1"));
    assert!(text.starts_with("exit code 2\n"), "{text}");
    assert!(scene.server.seen().is_empty());
}

#[test]
fn a_revision_is_another_snapshot() {
    let scene = Scene::new();
    let other = COMMIT.replace('0', "e");
    scene.server.publish(MODEL, "refs/pr/1", &other, &Scene::files("two"));
    stdout(&mut scene.fetch(MODEL));
    let printed = stdout(scene.fetch(MODEL).args(["--revision", "refs/pr/1"]));
    assert!(printed.trim().ends_with(&other));
    assert_eq!(stdout(&mut scene.fetch(&format!("{MODEL}@refs/pr/1"))), printed);
    assert_eq!(stdout(&mut scene.fetch(&format!("{MODEL}@{other}"))), printed);
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/refs/pr/1")).unwrap(), other);
    assert!(!scene.repository().join("refs").join(&other).exists());
    scene.assert_fetched();
}

#[test]
fn of_several_processes_one_fetches() {
    let scene = Scene::new();
    scene.server.fail(Faults { pause: Duration::from_millis(300), ..Faults::default() });
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
        for name in VARIABLES.iter().chain(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]) {
            command.env_remove(name);
        }
        command
            .args(["fetch", MODEL])
            .env("HF_HOME", scene.home.path())
            .env("HF_ENDPOINT", &scene.server.endpoint);
        Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let mut all: Vec<Running> = (0..4).map(|_| start()).collect();
    for running in &mut all {
        assert!(running.wait().success());
    }
    scene.assert_fetched();
    let fetches = scene.server.seen().into_iter().filter(|seen| seen.at == Place::Storage).count();
    assert_eq!(fetches, 1);
}

/// A whole checkpoint and, apart from it, the towers that its config.json names.
fn publish_checkpoint(scene: &Scene) {
    let folder = common::fixture("models/vicuna-tiny");
    let needed =
        |name: &str| !name.contains("golden") && !name.starts_with("train") && !name.ends_with(".png");
    let mut files = files_of(&folder, "");
    files.retain(|(name, _)| needed(name) && !name.starts_with("clip-tower/"));
    for (name, bytes) in &mut files {
        if name == "config.json" {
            *bytes = String::from_utf8(bytes.clone())
                .unwrap()
                .replace("\"clip-tower\"", "\"owner/tower\"")
                .into_bytes();
        }
    }
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    scene.server.publish("owner/vicuna-tiny", "main", COMMIT, &named);
    let tower = files_of(&folder.join("clip-tower"), "");
    let tower: Vec<(&str, Vec<u8>)> = tower.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    scene.server.publish("owner/tower", "main", COMMIT, &tower);
}

#[test]
fn a_model_by_name_answers_as_its_folder_does() {
    let scene = Scene::new();
    publish_checkpoint(&scene);
    let ask = |model: &str| {
        let mut command = scene.program();
        command.args(["chat", "--max-new-tokens", "8", "--model", model]).args(common::device());
        command.arg("--image").arg(common::photo()).arg("What is this?");
        command
    };
    let by_name = stdout(&mut ask("owner/vicuna-tiny"));
    let seen = scene.server.seen();
    assert!(seen.iter().any(|seen| seen.path.contains("owner/tower")), "the tower comes with it");
    let folder = common::fixture("models/vicuna-tiny");
    assert_eq!(by_name, stdout(&mut ask(folder.to_str().unwrap())));
    // From then on nobody is asked.
    assert_eq!(by_name, stdout(&mut ask("owner/vicuna-tiny")));
    assert_eq!(by_name, stdout(ask("owner/vicuna-tiny").env("HF_HUB_OFFLINE", "1")));
    assert!(scene.server.seen().is_empty());

    // A folder that names the tower finds what was fetched, and says what to fetch where nothing was.
    let copy = common::copy_of("vicuna-tiny");
    std::fs::remove_dir_all(copy.path().join("clip-tower")).unwrap();
    let config = copy.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"clip-tower\"", "\"owner/tower\"");
    std::fs::write(config, text).unwrap();
    assert_eq!(by_name, stdout(&mut ask(copy.path().to_str().unwrap())));
    std::fs::remove_dir_all(scene.home.path().join("hub/models--owner--tower")).unwrap();
    let text = scene.outcome(&mut ask(copy.path().to_str().unwrap()));
    assert!(text.contains("tg-llava-cli fetch owner/tower"), "{text}");
    assert!(scene.server.seen().is_empty());
}

fn publish_folder(scene: &Scene, name: &str, folder: &Path) {
    let files = files_of(folder, "");
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    scene.server.publish(name, "main", COMMIT, &files);
}

/// Trains for a step into the folder `name` of the scene; `tables` name the model.
fn train(scene: &Scene, name: &str, tables: &str) -> PathBuf {
    let (run, config) = (scene.home.path().join(name), scene.home.path().join("run.toml"));
    let examples = common::fixture("../../examples/data/easy-vqa");
    let text = format!(
        "stage = 'pretrain'\noutput_dir = '{}'\n{tables}\n[data]\npath = '{}'\nimage_folder = '{}'\n[run]\nbatch_size = 1\n\
         max_steps = 1\n",
        run.display(),
        examples.join("train.json").display(),
        examples.join("images").display()
    );
    std::fs::write(&config, text).unwrap();
    stdout(scene.program().args(["train", "--config"]).arg(config).args(common::device()));
    run
}

#[test]
fn a_run_needs_of_bridges_their_files_alone_and_an_adapter_names_its_decoder() {
    let scene = Scene::new();
    publish_checkpoint(&scene);
    publish_folder(&scene, "owner/decoder", &common::fixture("models/vicuna-tiny/base-llm"));
    let model = "[model]\npath = 'owner/decoder'\nvision_tower = 'owner/tower'\n";
    let first = train(&scene, "first", model);
    let mut bridges = files_of(&first, "");
    bridges.retain(|(name, _)| name.starts_with("mm_"));
    let mut bridges: Vec<(&str, Vec<u8>)> =
        bridges.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    bridges.push(("config.json", br#"{"_name_or_path": "owner/nowhere"}"#.to_vec()));
    scene.server.publish("owner/bridges", "main", COMMIT, &bridges);
    let run = train(
        &scene,
        "run",
        &format!("{model}bridges = 'owner/bridges'\n[train]\nllm = true\n[lora]\nrank = 2"),
    );
    for (file, key) in [("adapter_config.json", "base_model_name_or_path"), ("config.json", "_name_or_path")]
    {
        let text = std::fs::read_to_string(run.join(file)).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config[key], "owner/decoder", "{file}");
    }
    let mut chat = scene.program();
    chat.args(["chat", "--max-new-tokens", "4", "Hi", "--model"]).arg(run).args(common::device());
    stdout(chat.env("HF_HUB_OFFLINE", "1"));
}

#[test]
fn a_model_that_may_be_whole_is_used_where_the_hub_is_out_of_reach() {
    let scene = Scene::new();
    publish_folder(&scene, MODEL, &common::fixture("models/vicuna-tiny/base-llm"));
    stdout(&mut scene.fetch(MODEL));
    for entry in std::fs::read_dir(scene.snapshot()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("token") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut inspect = scene.program();
    let text = scene.outcome(inspect.args(["inspect", MODEL]).env("HF_ENDPOINT", "http://127.0.0.1:9"));
    assert!(text.contains("owner/small is used as it is in the cache"), "{text}");
}

#[test]
fn a_whole_tower_is_not_replaced_by_small_files_of_a_newer_commit() {
    let scene = Scene::new();
    publish_checkpoint(&scene);
    stdout(&mut scene.fetch("owner/tower"));
    let tower = common::fixture("models/vicuna-tiny/clip-tower");
    let files = files_of(&tower, "");
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (&**name, bytes.clone())).collect();
    scene.server.publish("owner/tower", "main", &COMMIT.replace('0', "f"), &files);
    stdout(&mut scene.fetch("owner/vicuna-tiny"));
    let main = scene.home.path().join("hub/models--owner--tower/refs/main");
    assert_eq!(std::fs::read_to_string(main).unwrap(), COMMIT);
}

#[test]
fn other_commands_take_names_too() {
    let scene = Scene::new();
    publish_checkpoint(&scene);
    let text = stdout(scene.program().args(["inspect", "owner/vicuna-tiny"]));
    assert!(text.contains("(owner/tower)") && text.contains("complete: all"), "{text}");
    publish_folder(&scene, "owner/decoder", &common::fixture("models/vicuna-tiny/base-llm"));
    let run = train(&scene, "run", "[model]\npath = 'owner/decoder'\nvision_tower = 'owner/tower'");
    // The names mean the same on another machine.
    let config = std::fs::read_to_string(run.join("config.json")).unwrap();
    assert!(config.contains("\"owner/tower\"") && config.contains("\"owner/decoder\""), "{config}");
    scene.server.seen();
    let mut chat = scene.program();
    chat.args(["chat", "--max-new-tokens", "4", "Hi", "--model"]).arg(run).args(common::device());
    stdout(&mut chat);
    assert!(scene.server.seen().is_empty());
}
