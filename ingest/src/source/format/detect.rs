//! What an object or member is: by the last extension of its name, checked against its first bytes.
//!
//! Bytes win where a name is silent or wrong about a container; names win where bytes are ambiguous, as all text is.
//! Deliberately absent: guessing among text formats by their content beyond that.

use forebay_schemas::dataset::Modality;

use super::Format;
use crate::source::container::{Archive, Codec, Container};
use crate::source::open::Item;

/// What something is.
#[derive(Debug, PartialEq)]
pub(in crate::source) enum Kind {
    Container(Container),
    Format(Format),
    /// No reader, and why.
    Unsupported(String),
}

/// Text that is one record whatever its first bytes; markup, prose and program text.
const TEXT: [&str; 53] = [
    "txt", "text", "md", "markdown", "rst", "tex", "org", "adoc", "srt", "vtt", "log", "rs", "py", "pyi", "ipynb", "c", "h", "cc", "cpp",
    "cxx", "hpp", "hh", "java", "go", "js", "mjs", "ts", "tsx", "jsx", "rb", "php", "cs", "swift", "kt", "scala", "sh", "bash", "sql",
    "lua", "r", "jl", "hs", "ml", "ex", "clj", "pl", "css", "scss", "yaml", "yml", "toml", "ini", "cfg",
];
const PICTURES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Known to be no text; several are zip files inside, which must not be unpacked.
const FOREIGN: [&str; 48] = [
    "pdf",
    "ps",
    "doc",
    "docx",
    "xls",
    "xlsx",
    "ppt",
    "pptx",
    "odt",
    "ods",
    "odp",
    "epub",
    "mobi",
    "7z",
    "rar",
    "lz4",
    "br",
    "exe",
    "dll",
    "so",
    "o",
    "a",
    "class",
    "jar",
    "apk",
    "pyc",
    "wasm",
    "mp3",
    "wav",
    "flac",
    "ogg",
    "m4a",
    "mp4",
    "avi",
    "mkv",
    "mov",
    "webm",
    "tif",
    "tiff",
    "npy",
    "npz",
    "pt",
    "pth",
    "safetensors",
    "arrow",
    "orc",
    "avro",
    "sqlite",
];

/// What `item` is, and its name; `head` is its first bytes, at most some KiB.
pub(in crate::source) fn kind<'a>(mut item: Item<'a>, head: &[u8], modality: Modality) -> (Kind, &'a str) {
    loop {
        let (stem, extension) = match item.name.rsplit_once('.') {
            Some((stem, extension)) => (stem, extension.to_ascii_lowercase()),
            None => (item.name, String::new()),
        };
        if extension == "gz" && is_web_archive(stem) && modality == Modality::Text {
            // Each record is a gzip member of its own: the reader goes on behind a broken one, where a stream would end.
            return (Kind::Format(Format::WebArchive), item.name);
        }
        let Some(codec) = Codec::of_name(&extension) else { return (unpacked(item, &extension, head, modality), item.name) };
        match Codec::of_bytes(head) {
            // The name says compressed, the bytes are plain text: it was unpacked on its way here.
            None if is_utf8(head) && !codec.is_cut_off(head) => item.name = codec.inner_name(item.name, stem),
            found => return (Kind::Container(Container::Codec(found.unwrap_or(codec))), item.name),
        }
    }
}

/// What `item` is, whose name does not say that it is compressed.
fn unpacked(item: Item<'_>, extension: &str, head: &[u8], modality: Modality) -> Kind {
    if FOREIGN.contains(&extension) {
        return Kind::Unsupported(format!("no reader for .{extension} files"));
    }
    match extension {
        "tar" if Codec::of_bytes(head).is_none() => return Kind::Container(Container::Archive(Archive::Tar)),
        "zip" => return Kind::Container(Container::Archive(Archive::Zip)),
        _ => {}
    }
    if let Some(container) = container(head, Format::of_name(extension).is_none() && !TEXT.contains(&extension)) {
        return Kind::Container(container);
    }
    format(item, extension, head, modality)
}

fn is_web_archive(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    Format::of_name(&extension) == Some(Format::WebArchive)
}

/// The container that the bytes are; `bold` where the name says nothing against it.
fn container(head: &[u8], bold: bool) -> Option<Container> {
    if let Some(codec) = Codec::of_bytes(head) {
        return Some(Container::Codec(codec));
    }
    Archive::of_bytes(head).filter(|archive| bold || *archive == Archive::Zip).map(Container::Archive)
}

fn format(item: Item<'_>, extension: &str, head: &[u8], modality: Modality) -> Kind {
    let named = match extension {
        "xml" if !is_dump(head) => Some(Format::Plain),
        extension if TEXT.contains(&extension) => Some(Format::Plain),
        extension if PICTURES.contains(&extension) => Some(Format::Picture),
        extension => Format::of_name(extension),
    };
    let found = named.or_else(|| Format::of_bytes(head));
    match (modality, found) {
        (Modality::Images, Some(format @ (Format::Picture | Format::Parquet))) => Kind::Format(format),
        (Modality::Images, _) => Kind::Unsupported("neither a picture nor a container of pictures".to_owned()),
        (Modality::Text, Some(Format::Picture)) => Kind::Unsupported("a picture, expected text".to_owned()),
        (Modality::Text, Some(format)) => Kind::Format(format),
        // Asked for by its key, it is text; what is wrong with that is for the cleaner to say.
        (Modality::Text, None) if is_text(head) || !item.member => Kind::Format(Format::Plain),
        (Modality::Text, None) => Kind::Unsupported("neither text nor a format with a reader".to_owned()),
    }
}

/// Whether something of this name may hold pictures, or is one that no sample of a WebDataset has.
pub(super) fn is_opened(file: &str) -> bool {
    let extension = file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    Codec::of_name(&extension).is_some() || matches!(extension.as_str(), "tar" | "zip" | "parquet" | "gif" | "bmp")
}

/// Whether bytes may be text: no control characters that no text has, unless it is UTF-16.
pub(super) fn is_text(head: &[u8]) -> bool {
    let utf16 = head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]);
    utf16 || !head.iter().any(|byte| matches!(byte, 0..=6 | 0x0E..=0x1A | 0x1C..=0x1F))
}

/// Whether bytes are text in UTF-8, but for a character that is cut off at the end.
fn is_utf8(head: &[u8]) -> bool {
    is_text(head) && std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Whether an XML file is a dump of rows. The root's name and the prolog are short.
fn is_dump(head: &[u8]) -> bool {
    let has = |pattern: &[u8]| memchr::memmem::find(head, pattern).is_some();
    has(b"<row ") || has(b"<row/") || has(b"<\0r\0o\0w\0 ") || has(b"\0<\0r\0o\0w\0 ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_tell_the_kind() {
        let text = Modality::Text;
        let check = |name: &str, head: &[u8], modality: Modality, expected: Kind| {
            let item = Item { name, place: "", depth: 0, member: true };
            assert_eq!(kind(item, head, modality).0, expected, "{name}");
        };
        let codec = |codec| Kind::Container(Container::Codec(codec));
        check("a.jsonl.gz", b"\x1f\x8b\x08\0", text, codec(Codec::Gzip));
        check("a.jsonl.gz", b"{\"text\"", text, Kind::Format(Format::JsonLines));
        check("a.tgz", b"a\n", text, Kind::Container(Container::Archive(Archive::Tar)));
        check("a.gz", b"\x1e\x8b\x08\0", text, codec(Codec::Gzip));
        check("a.zst", b"\x1f\x8b\x08\0", text, codec(Codec::Gzip));
        check("a.jsonl", b"\x1f\x8b\x08\0", text, codec(Codec::Gzip));
        check("a.tar", b"\x1f\x8b\x08\0", text, codec(Codec::Gzip));
        check("a.jsonl", b"{\"text\"", text, Kind::Format(Format::JsonLines));
        check("a.docx", b"PK\x03\x04", text, Kind::Unsupported("no reader for .docx files".to_owned()));
        check("a.data", b"PK\x03\x04", text, Kind::Container(Container::Archive(Archive::Zip)));
        check("LICENSE", b"Permission", text, Kind::Format(Format::Plain));
        check("a.dat", b"\0\0\0", text, Kind::Unsupported("neither text nor a format with a reader".to_owned()));
        check("pom.xml", b"<project>", text, Kind::Format(Format::Plain));
        check("Posts.xml", b"<posts>\n  <row Id", text, Kind::Format(Format::Rows));
        check("a.JPG", b"", Modality::Images, Kind::Format(Format::Picture));
        check("a", b"\xFF\xD8\xFF", Modality::Images, Kind::Format(Format::Picture));
        check("a.jpg", b"\xFF\xD8\xFF", text, Kind::Unsupported("a picture, expected text".to_owned()));
        check("a.warc.wet.gz", b"\x1f\x8b\x08\0", text, Kind::Format(Format::WebArchive));
        check("a.warc.wet", b"WARC/1.0", text, Kind::Format(Format::WebArchive));
    }
}
