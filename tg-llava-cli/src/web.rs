//! What everything that fetches over HTTP needs.

use ureq::http::Uri;

/// How many addresses a server may send us on to.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// Where `location` leads to from `uri`.
pub(crate) fn resolve(uri: &Uri, location: &str) -> Option<Uri> {
    let parsed: Uri = location.parse().ok()?;
    match parsed.scheme_str() {
        Some("http" | "https") => Some(parsed),
        Some(_) => None,
        None if location.starts_with("//") => format!("{}:{location}", uri.scheme_str()?).parse().ok(),
        None if location.starts_with('/') => {
            format!("{}://{}{location}", uri.scheme_str()?, uri.authority()?).parse().ok()
        }
        None => {
            let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{}://{}{folder}/{location}", uri.scheme_str()?, uri.authority()?).parse().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_on_as_browsers_follow_them() {
        let uri: Uri = "http://a.org:81/x/y.png?z".parse().unwrap();
        for (location, expected) in [
            ("https://b.org/c", Some("https://b.org/c")),
            ("//b.org/c", Some("http://b.org/c")),
            ("/c?d", Some("http://a.org:81/c?d")),
            ("c.png", Some("http://a.org:81/x/c.png")),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(resolve(&uri, location).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        }
    }
}
