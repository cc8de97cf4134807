//! Whether a picture's name stays in the folder that it counts from.

use std::path::{Component, Path};

/// Whether the picture that a sample calls `name` lies in `folder`: no absolute name, no `..`, no link to elsewhere. A
/// data file from the web could otherwise have any picture of this machine read.
pub fn is_inside(folder: &Path, name: &str) -> bool {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    // A picture that is not there is for whoever opens it to tell.
    let stays = || match (folder.canonicalize(), folder.join(name).canonicalize()) {
        (Ok(folder), Ok(file)) => file.starts_with(folder),
        _ => true,
    };
    Path::new(name).components().all(plain) && stays()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("images");
        std::fs::create_dir_all(folder.join("train")).unwrap();
        for file in ["secret.png", "images/a.png", "images/train/b.png"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        for name in ["a.png", "train/b.png", "./a.png", "not/there.png"] {
            assert!(is_inside(&folder, name), "{name}");
        }
        let absolute = dir.path().join("images/a.png").display().to_string();
        let mut outside = vec!["../secret.png", "train/../../secret.png", "../not-there.png", &absolute];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("secret.png"), folder.join("link.png")).unwrap();
            std::os::unix::fs::symlink(dir.path(), folder.join("up")).unwrap();
            outside.extend(["link.png", "up/secret.png"]);
        }
        for name in outside {
            assert!(!is_inside(&folder, name), "{name}");
        }
    }
}
