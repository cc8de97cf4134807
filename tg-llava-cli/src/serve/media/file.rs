//! Pictures of `file://` addresses.

use std::io::Read;
use std::path::{Path, PathBuf};

/// The file at `url`, which must lie below `folder` itself, not behind a link.
///
/// # Errors
/// A reason that tells nothing about files elsewhere.
pub fn read(url: &str, folder: Option<&Path>, max_bytes: u64) -> Result<Vec<u8>, String> {
    let folder =
        folder.ok_or("this server reads no files (its operator can open a folder by --media-path)")?;
    let refused = || "there is no such file below the folder that this server reads".to_owned();
    let path = path_of(url).ok_or_else(refused)?;
    // A path with `..` or a link in it is not the path that it resolves to.
    let real = path.canonicalize().map_err(|_| refused())?;
    let metadata = real.metadata().map_err(|_| refused())?;
    if real != path || !real.starts_with(folder) || !metadata.is_file() {
        return Err(refused());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(real).map_err(|_| refused())?;
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|_| refused())?;
    Ok(bytes)
}

/// The path of `file:///path`, percent signs decoded.
fn path_of(url: &str) -> Option<PathBuf> {
    let rest = url.get("file:".len()..)?.strip_prefix("//")?;
    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    let mut bytes = Vec::new();
    let mut rest = rest.strip_prefix('/').map(|_| rest.as_bytes())?;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let hex = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?, after)
            }
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_below_the_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let open = root.join("open");
        std::fs::create_dir_all(open.join("a b")).unwrap();
        std::fs::write(open.join("a b/x.png"), "yes").unwrap();
        std::fs::write(root.join("secret"), "no").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), open.join("link")).unwrap();
        std::os::unix::fs::symlink(&root, open.join("up")).unwrap();
        let ask = |path: &str| read(&format!("file://{}/{path}", open.display()), Some(&open), 100);
        assert_eq!(ask("a%20b/x.png").unwrap(), b"yes");
        for path in
            ["../secret", "link", "up/secret", "a b", "none", "%2e%2e/secret", "a b/../../secret", "%zz"]
        {
            assert!(ask(path).is_err(), "{path}");
        }
        assert!(read(&format!("file://{}/secret", root.display()), Some(&open), 100).is_err());
        assert!(read("file:///etc/hostname", None, 100).is_err());
        assert_eq!(read(&format!("file://{}/a b/x.png", open.display()), Some(&open), 1).unwrap().len(), 2);
    }
}
