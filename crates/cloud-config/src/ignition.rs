//! Ignition's JSON, by the types that Ignition's authors generate from its schema (`ignition-config`).

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use ignition_config::Config;
use ignition_config::v3_3;
use percent_encoding::percent_decode_str;

use crate::contents::{Contents, Unit};
use crate::mask::Mask;
use crate::problem::Problem;

/// What a text within the JSON is given by: RFC 2397.
const DATA: &str = "data:";
const BASE64: &str = ";base64";

/// A URL that holds a text.
pub(crate) fn data_url(text: &str) -> String {
    format!("{DATA}{BASE64},{}", STANDARD.encode(text))
}

/// What a URL holds; None if it is not right.
fn data_of(url: &str) -> Option<Vec<u8>> {
    let (kind, data) = url.strip_prefix(DATA)?.split_once(',')?;
    let data: Vec<u8> = percent_decode_str(data).collect();
    if kind.ends_with(BASE64) { STANDARD.decode(data).ok() } else { Some(data) }
}

/// The most that a compressed file may come to here, in bytes: user data of EC2's 16 KiB can hold no file of ours that
/// is longer, and gzip makes some thousand times as much of what is meant to do harm.
const UNCOMPRESSED_MAX_BYTES: u64 = 1024 * 1024;

/// The text that a resource holds; None if it holds none.
fn text_of(url: &str, compression: &str) -> Option<String> {
    let data = data_of(url)?;
    let data = match compression {
        "" => data,
        "gzip" => {
            let mut text = Vec::new();
            GzDecoder::new(data.as_slice()).take(UNCOMPRESSED_MAX_BYTES + 1).read_to_end(&mut text).ok()?;
            (text.len() as u64 <= UNCOMPRESSED_MAX_BYTES).then_some(text)?
        }
        _ => return None,
    };
    String::from_utf8(data).ok()
}

/// Reads a document, strictly: what Ignition would warn of is refused.
pub(crate) fn read(text: &str) -> Result<Contents, Vec<Problem>> {
    let wrong = |why: String| Problem::Structure(format!("Ignition: {}", Mask::of(text).apply(&why)));
    // Judged by the version that it says it is.
    let (_, warnings) = Config::parse_str(text).map_err(|error| vec![wrong(error.to_string())])?;
    let mut problems: Vec<Problem> = warnings.iter().map(|warning| wrong(warning.to_string())).collect();
    // Files and units are the same in all versions 3.
    let config: v3_3::Config = serde_json::from_str(text).map_err(|error| vec![wrong(error.to_string())])?;
    let mut contents = Contents::default();
    for file in config.storage.unwrap_or_default().files.unwrap_or_default() {
        match read_file(&file) {
            Ok(text) => contents.add_file(file.path, text),
            Err(why) => problems.push(wrong(format!("{}: {why}", file.path))),
        }
    }
    for unit in config.systemd.unwrap_or_default().units.unwrap_or_default() {
        if unit.enabled == Some(true)
            && unit.contents.as_ref().is_some_and(|text| !text.contains("[Install]"))
        {
            problems.push(Problem::Unit(format!(
                "{}: is enabled and has no [Install], so nothing starts it",
                unit.name
            )));
        }
        let drop_ins = unit.dropins.unwrap_or_default().into_iter();
        contents.add_unit(Unit {
            name: unit.name,
            text: unit.contents,
            drop_ins: drop_ins.map(|drop_in| (drop_in.name, drop_in.contents.unwrap_or_default())).collect(),
        });
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

fn read_file(file: &v3_3::File) -> Result<String, &'static str> {
    if !file.path.starts_with('/') {
        return Err("not an absolute path");
    }
    // The most that a mode can be, in octal, with the bits for set-id and sticky.
    if file.mode.is_some_and(|mode| !(0..=0o7777).contains(&mode)) {
        return Err("its mode is not one; JSON has numbers in decimal");
    }
    let resources = file.contents.iter().chain(file.append.iter().flatten());
    let mut text = String::new();
    for resource in resources {
        let compression = resource.compression.as_deref().unwrap_or_default();
        match resource.source.as_deref() {
            // What is fetched from elsewhere is not in the user data.
            Some(source) if !source.starts_with(DATA) => {}
            Some(source) => {
                text.push_str(&text_of(source, compression).ok_or("its 'data:' URL holds no text")?);
            }
            None => {}
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn data_urls() {
        assert_eq!(text_of(&data_url("a=b\n"), "").as_deref(), Some("a=b\n"));
        assert_eq!(text_of("data:,a%3Db%0A", "").as_deref(), Some("a=b\n"));
        assert_eq!(
            text_of("data:text/plain;charset=utf-8;base64,YT1iCg%3D%3D", "").as_deref(),
            Some("a=b\n")
        );
        for wrong in ["data:;base64,***", "data:", "https://example.com/a", "data:,%ff"] {
            assert_eq!(text_of(wrong, ""), None, "{wrong}");
        }
        assert_eq!(text_of("data:,a", "gzip"), None);
        assert_eq!(text_of("data:,a", "zstd"), None);
    }

    fn gzip(bytes: usize) -> String {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b'a'; bytes]).expect("it is written to memory");
        format!("{DATA}{BASE64},{}", STANDARD.encode(gzip.finish().expect("it is written to memory")))
    }

    #[test]
    fn what_is_compressed_is_looked_into_and_bounded() {
        assert_eq!(text_of(&gzip(1024 * 1024), "gzip").expect("just as much").len(), 1024 * 1024);
        assert_eq!(text_of(&gzip(1024 * 1024 + 1), "gzip"), None);
        // It fits into user data.
        assert!(gzip(8 * 1024 * 1024).len() < 16 * 1024);
    }
}
