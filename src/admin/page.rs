//! The live page: one HTML file in the binary, and the policy that keeps a browser from running or loading anything else.

use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

pub(super) struct Page {
    /// The content security policy. It allows the page's own script and style by their hashes, and the Admin's endpoints.
    pub policy: HeaderValue,
}

impl Page {
    pub const HTML: &str = include_str!("page.html");

    pub fn new() -> Self {
        let [script, style] =
            ["script", "style"].map(|element| BASE64_STANDARD.encode(Sha256::digest(text_of(element))));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
             img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { policy: policy.try_into().expect("it is ASCII") }
    }
}

/// What stands between the tags of the page's only element of this name.
fn text_of(element: &str) -> &'static str {
    let (_, rest) = Page::HTML.split_once(&format!("<{element}>")).expect("the page has one");
    rest.split_once(&format!("</{element}>")).expect("it is closed").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_small_file_whose_policy_covers_all_of_it() {
        assert!(Page::HTML.len() < 30_000, "{}", Page::HTML.len());
        for element in ["script", "style"] {
            assert_eq!(Page::HTML.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        for outside in [" style=", " onclick=", "javascript:", "http://", "https://", " src=", "@import", "url("] {
            assert!(!Page::HTML.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_policy_names_the_hashes_of_script_and_style() {
        let policy = Page::new().policy;
        let policy = policy.to_str().unwrap();
        for element in ["script", "style"] {
            // By another implementation than the one that made them.
            let digest = ring::digest::digest(&ring::digest::SHA256, text_of(element).as_bytes());
            let hash = BASE64_STANDARD.encode(digest);
            assert!(policy.contains(&format!("; {element}-src 'sha256-{hash}'; ")), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    }
}
