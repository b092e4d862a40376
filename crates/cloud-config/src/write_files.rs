//! `write_files`, which coreos-cloudinit took over from cloud-init: what the two have in common.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::problem::Problem;

/// A file as it is given.
pub(crate) struct Given {
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) is_base64: bool,
    pub(crate) permissions: Option<String>,
}

impl Given {
    /// Its path and its text.
    pub(crate) fn read(self) -> Result<(String, String), Problem> {
        let Self { path, content, is_base64, permissions } = self;
        let wrong = |why: &str| Problem::Structure(format!("write_files: {path:?}: {why}"));
        if !path.starts_with('/') {
            return Err(wrong("not an absolute path"));
        }
        if permissions.is_some_and(|permissions| !is_octal_mode(&permissions)) {
            return Err(wrong("its permissions are not an octal mode, like '0644'"));
        }
        let text = if is_base64 {
            let bytes = STANDARD.decode(content.trim_end()).ok();
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| wrong("its content is not the base64 of a text"))?
        } else {
            content
        };
        Ok((path, text))
    }
}

/// Three or four octal digits, and perhaps a 0 before them.
fn is_octal_mode(permissions: &str) -> bool {
    let digits = permissions.strip_prefix('0').unwrap_or(permissions);
    (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for right in ["644", "0644", "1777", "01777"] {
            assert!(is_octal_mode(right), "{right}");
        }
        for wrong in ["", "64", "0o644", "0888", "rw-r--r--", "006440"] {
            assert!(!is_octal_mode(wrong), "{wrong}");
        }
    }

    #[test]
    fn contents() {
        let file = |content: &str, is_base64| Given {
            path: "/etc/a".to_owned(),
            content: content.to_owned(),
            is_base64,
            permissions: None,
        };
        assert_eq!(file("a\n", false).read().expect("a text").1, "a\n");
        assert_eq!(file("YQo=\n", true).read().expect("base64 of a text").1, "a\n");
        assert!(file("YQo", true).read().is_err());
        // 0xff is no text.
        assert!(file("/w==", true).read().is_err());
        assert!(Given { path: "etc/a".to_owned(), ..file("", false) }.read().is_err());
    }
}
