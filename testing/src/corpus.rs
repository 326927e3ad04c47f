//! Reads the corpus: responses with the expected classification.

use std::{fs, path::Path};

/// One file of the corpus.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub method: String,
    pub path: String,
    pub verdict: String,
    /// The provider whose rules read it; none for Azure's.
    pub provider: Option<String>,
    /// Its lines; the first is the status line.
    pub head: Vec<String>,
    pub body: Vec<u8>,
}

impl Sample {
    /// Every file of Azure's, and of gateways before it.
    pub fn all() -> Vec<Self> {
        Self::within("../tests/corpus")
    }

    /// Every file of another provider.
    pub fn of_providers() -> Vec<Self> {
        Self::within("../tests/corpus/providers")
    }

    fn within(folder: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut samples: Vec<_> = fs::read_dir(folder)
            .expect("the corpus")
            .map(|entry| entry.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "http"))
            .map(|path| Self::parse(&path))
            .collect();
        samples.sort_by(|a, b| a.name.cmp(&b.name));
        samples
    }

    /// The file with this name.
    pub fn named(name: &str) -> Self {
        let found = Self::all().into_iter().find(|sample| sample.name == name);
        found.unwrap_or_else(|| panic!("no file is called {name}"))
    }

    fn parse(path: &Path) -> Self {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a text");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let tagged = |tag: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(tag));
            line.unwrap_or_else(|| panic!("{name} has no line `{tag}`")).to_owned()
        };
        let request = tagged("# request: ");
        let (method, path) = request.split_once(' ').expect("a method and a path");
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            verdict: tagged("# verdict: "),
            provider: head
                .lines()
                .find_map(|it| it.strip_prefix("# provider: "))
                .map(str::to_owned),
            head: head.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect(),
            body: body.as_bytes().to_vec(),
            name,
        }
    }

    pub fn status(&self) -> u16 {
        self.head[0].split(' ').nth(1).expect("a status").parse().expect("a status")
    }

    pub fn is_stream(&self) -> bool {
        self.head.iter().any(|line| line.starts_with("content-type: text/event-stream"))
    }

    /// The bytes a server sends for this file. Like Azure's, a stream has no length.
    pub fn wire(&self) -> Vec<u8> {
        let (head, length) = (self.head.join("\r\n"), self.body.len());
        let (begin, end) = match self.is_stream() {
            true => (format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n"), "\r\n0\r\n\r\n"),
            false => (format!("content-length: {length}\r\n\r\n"), ""),
        };
        [head.as_bytes(), b"\r\n", begin.as_bytes(), &self.body, end.as_bytes()].concat()
    }
}
