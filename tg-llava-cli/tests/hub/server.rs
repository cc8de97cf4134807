//! A hub to test with: it answers as Hugging Face does, keeps large files at another address, and fails as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// Files from this size on are large ones.
const LARGE: usize = 1000;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Place,
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
}

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Hub,
    Storage,
}

/// How the hub fails.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Answers of the storage that end after so many bytes, one after the other.
    pub cuts: Vec<usize>,
    /// Whether the storage gives whole files only.
    pub no_ranges: bool,
    /// Whether nobody says how long a file is before it comes.
    pub no_sizes: bool,
    /// Whether the storage gives other contents.
    pub garbled: bool,
    /// The only token that opens the models, where they are closed.
    pub token: Option<String>,
    /// How long the storage waits in the middle of a file.
    pub pause: std::time::Duration,
}

#[derive(Default)]
struct State {
    /// By model and commit.
    files: BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>,
    /// Commits by model and revision.
    revisions: BTreeMap<(String, String), String>,
    faults: Faults,
    seen: Vec<Seen>,
}

/// The hub. Its threads end with the test.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    /// Address of the hub.
    pub endpoint: String,
    storage: String,
}

impl Server {
    pub fn start() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (hub, storage) = (bind(), bind());
        let server = Self { state: Arc::default(), endpoint: address(&hub), storage: address(&storage) };
        for (listener, at) in [(hub, Place::Hub), (storage, Place::Storage)] {
            let server = server.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let server = server.clone();
                    thread::spawn(move || server.connection(at, &stream.unwrap()));
                }
            });
        }
        server
    }

    /// Puts files under a commit of a model, which `revision` then stands for.
    pub fn publish(&self, model: &str, revision: &str, commit: &str, files: &[(&str, Vec<u8>)]) {
        let mut state = self.state.lock().unwrap();
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        state.files.insert((model.into(), commit.into()), files);
        state.revisions.insert((model.into(), revision.into()), commit.into());
    }

    /// Fails like this from now on.
    pub fn fail(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }

    /// What came since this was asked last.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn connection(&self, at: Place, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        // Connections stay open, as those of the hub do.
        while let Some(request) = read_request(at, &mut reader) {
            self.state.lock().unwrap().seen.push(request.clone());
            let goes_on = match at {
                Place::Hub => self.hub(&request, stream),
                Place::Storage => self.storage(&request, stream),
            };
            if !goes_on {
                break;
            }
        }
    }

    fn hub(&self, request: &Seen, mut stream: &TcpStream) -> bool {
        let (status, headers, body) = self.hub_answer(request);
        let mut head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let body = if request.method == "HEAD" { &[] } else { &body[..] };
        stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
    }

    fn hub_answer(&self, request: &Seen) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
        let state = self.state.lock().unwrap();
        let error =
            |status: u16, code: &str| (status, vec![("x-error-code", code.to_owned())], b"no".to_vec());
        if let Some(token) = &state.faults.token
            && request.token.as_deref() != Some(&format!("Bearer {token}"))
        {
            return error(401, "GatedRepo");
        }
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["api", "models", owner, name, "revision", revision] => {
                let (model, revision) = (format!("{owner}/{name}"), revision.replace("%2F", "/"));
                if !state.revisions.keys().any(|(known, _)| *known == model) {
                    return error(404, "RepoNotFound");
                }
                let commit = state.revisions.get(&(model.clone(), revision.clone())).cloned();
                let commit = commit.or_else(|| {
                    state.files.contains_key(&(model.clone(), revision.clone())).then_some(revision)
                });
                let Some(commit) = commit else { return error(404, "RevisionNotFound") };
                let files = state.files[&(model, commit.clone())].keys();
                let siblings: Vec<_> = files.map(|name| serde_json::json!({ "rfilename": name })).collect();
                let info = serde_json::json!({ "id": "x", "sha": commit, "siblings": siblings });
                (200, Vec::new(), info.to_string().into_bytes())
            }
            [owner, name, "resolve", commit, ..] => {
                let (model, file) = (format!("{owner}/{name}"), parts[4..].join("/"));
                let found = state.files.get(&(model, commit.to_owned())).and_then(|files| files.get(&file));
                let Some(bytes) = found else { return error(404, "EntryNotFound") };
                let commit = ("x-repo-commit", commit.to_owned());
                if bytes.len() < LARGE {
                    // As git names contents; some name is enough here.
                    let etag = format!("\"{}\"", &sha256(bytes)[..40]);
                    return (200, vec![commit, ("etag", etag)], bytes.clone());
                }
                let mut headers = vec![
                    commit,
                    ("x-linked-etag", format!("\"{}\"", sha256(bytes))),
                    ("x-linked-size", bytes.len().to_string()),
                    ("location", format!("{}/{}?signature=x", self.storage, sha256(bytes))),
                ];
                headers.retain(|(name, _)| *name != "x-linked-size" || !state.faults.no_sizes);
                (302, headers, b"Found. Redirecting".to_vec())
            }
            _ => error(404, "NoSuchPage"),
        }
    }

    /// Whether the connection goes on.
    fn storage(&self, request: &Seen, mut stream: &TcpStream) -> bool {
        let (bytes, faults, cut) = {
            let mut state = self.state.lock().unwrap();
            let wanted = request.path.trim_start_matches('/').split('?').next().unwrap();
            let found = state.files.values().flat_map(BTreeMap::values).find(|bytes| sha256(bytes) == wanted);
            let bytes = found.unwrap().clone();
            let cuts = &mut state.faults.cuts;
            let cut = if cuts.is_empty() { None } else { Some(cuts.remove(0)) };
            (bytes, state.faults.clone(), cut)
        };
        let bytes: Vec<u8> = if faults.garbled { bytes.iter().map(|byte| !byte).collect() } else { bytes };
        let from = request.range.as_ref().filter(|_| !faults.no_ranges).map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
        });
        if from >= bytes.len() {
            return stream.write_all(b"HTTP/1.1 416 -\r\ncontent-length: 0\r\n\r\n").is_ok();
        }
        let status = if from > 0 { 206 } else { 200 };
        let (rest, len) = (&bytes[from..], bytes.len());
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{len}\r\n\r\n",
            rest.len(),
            len - 1
        );
        let sent = &rest[..cut.unwrap_or(rest.len()).min(rest.len())];
        let (first, second) = sent.split_at(sent.len() / 2);
        let mut write = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush()).is_ok();
        let whole = write(head.as_bytes()) && write(first) && {
            thread::sleep(faults.pause);
            write(second)
        };
        if cut.is_some() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        whole && cut.is_none()
    }
}

/// The next request of a connection; none of these has a body.
fn read_request(at: Place, reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let first = next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut seen = Seen { at, method, path, token: None, range: None };
    loop {
        let header = next()?;
        match header.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())) {
            None => return Some(seen),
            Some((name, value)) if name == "authorization" => seen.token = Some(value),
            Some((name, value)) if name == "range" => seen.range = Some(value),
            Some(_) => {}
        }
    }
}

/// In hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of a folder, by name from `below`; those in folders as well.
pub fn files_of(folder: &std::path::Path, below: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files.extend(files_of(&path, &format!("{name}/")));
        } else {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            files.push((name, bytes));
        }
    }
    files
}
