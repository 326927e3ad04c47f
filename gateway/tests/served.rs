//! A gateway in front of emulated resources, each in its own process, and a client.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{ChildStderr, Command, Stdio},
    time::Duration,
};

use crate::{emulate, started::Started};

/// `east` with a PTU that one request fills for minutes, and `sweden` without limits. Both have
/// the deployments `gpt-4o` and `text`, of which `text` is unlimited.
pub(crate) struct Azure {
    endpoints: [String; 2],
    _emulator: Started,
}

impl Azure {
    pub(crate) fn new(name: &str) -> Self {
        let resource = |name: &str, gpt: &str| {
            format!(
                "[[resources]]\nname = \"{name}\"\nkey = \"azure-key\"\n\
                 [[resources.deployments]]\nname = \"gpt-4o\"\n{gpt}\n\
                 [[resources.deployments]]\nname = \"text\"\nstandard = {{}}\n"
            )
        };
        let full = "ptu = { tokens_per_second = 1, bucket = \"1s\" }";
        let text = resource("east", full) + &resource("sweden", "standard = {}");
        let config = emulate::file(&format!("{name}/azure.toml"), &text);
        let mut emulator = Started::new(&["emulate", "--config", config.to_str().unwrap()]);
        Self { endpoints: [emulator.endpoint(), emulator.endpoint()], _emulator: emulator }
    }

    pub(crate) fn endpoint(&self, resource: usize) -> &str {
        &self.endpoints[resource]
    }
}

/// `spillover serve --config`, which logs into its configuration's folder.
pub(crate) struct Gateway {
    program: Started,
    address: String,
    admin: Option<String>,
    log: PathBuf,
}

/// A gateway that may not be listening yet.
pub(crate) struct Beginning {
    program: Started,
    log: PathBuf,
}

impl Beginning {
    pub(crate) fn listening(mut self) -> Gateway {
        let (url, admin) = self.program.endpoints();
        let (_, address) = url.split_once("://").unwrap();
        let admin = admin.map(|admin| admin.strip_prefix("http://").unwrap().to_owned());
        Gateway { program: self.program, address: address.to_owned(), admin, log: self.log }
    }

    pub(crate) fn pid(&self) -> String {
        self.program.pid()
    }

    /// Whether SIGHUP, the first signal, would be handled.
    #[cfg(target_os = "linux")]
    pub(crate) fn hears_hangups(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
    }
}

impl Gateway {
    pub(crate) fn start(config: &Path) -> Self {
        Self::begin(config).listening()
    }

    /// With these variables in its environment.
    pub(crate) fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        Self::begin_with(config, variables).listening()
    }

    pub(crate) fn begin(config: &Path) -> Beginning {
        Self::begin_with(config, &[])
    }

    fn begin_with(config: &Path, variables: &[(&str, &str)]) -> Beginning {
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let (log, stderr) = log_beside(config);
        let variables = variables.iter().copied();
        let program =
            Started::with(&arguments, |command| keyed(command).envs(variables).stderr(stderr));
        Beginning { program, log }
    }

    /// Its log goes elsewhere.
    pub(crate) fn logging_to(config: &Path, log: impl Into<Stdio>) -> Self {
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let program = Started::with(&arguments, |command| keyed(command).stderr(log));
        Beginning { program, log: PathBuf::from("/dev/null") }.listening()
    }

    /// Started like [`Started::shell`], with a log elsewhere.
    #[cfg(unix)]
    pub(crate) fn shell(text: &str, arguments: &[&str]) -> Self {
        let program = Started::shell(text, arguments);
        Beginning { program, log: PathBuf::from("/dev/null") }.listening()
    }

    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.program.stderr()
    }

    /// It must exit successfully without a signal.
    pub(crate) fn ended(self) {
        self.program.ended();
    }

    /// It must exit successfully after SIGTERM.
    #[cfg(unix)]
    pub(crate) fn terminated(self) {
        self.program.terminated();
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> String {
        self.program.pid()
    }

    /// The path of its configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.log.parent().unwrap()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    pub(crate) fn eventually(&self, is_so: impl Fn(&Self) -> bool) {
        let is_so = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            is_so(self)
        });
        assert!(is_so, "{}", self.log());
    }

    /// Host and port of the operators' address.
    pub(crate) fn admin(&self) -> &str {
        self.admin.as_deref().expect("the configuration has one")
    }

    /// One of the operators' pages.
    pub(crate) fn page(&self, path: &str) -> Answer {
        ask(self.admin.as_ref().unwrap(), "GET", path, &[], "").unwrap()
    }

    /// A chat completion in the classic grammar.
    pub(crate) fn chat(&self, model: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21");
        self.ask("POST", &path, headers, HELLO)
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        ask(&self.address, method, path, headers, body).unwrap()
    }
}

/// Sends these bytes unchanged on a new connection.
pub(crate) fn ask_raw(address: &str, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut text = Vec::new();
    // It may be closed with unread data.
    let _ = stream.read_to_end(&mut text);
    Answer(String::from_utf8_lossy(&text).into_owned())
}

/// One request on a new connection.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{}\r\n{body}",
        body.len(),
        lines.collect::<String>(),
    );
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Answer(text))
}

fn log_beside(config: &Path) -> (PathBuf, File) {
    let log = config.with_file_name("gateway.log");
    let file = File::create(&log).unwrap();
    (log, file)
}

fn keyed(command: &mut Command) -> &mut Command {
    let keys = [("TEAM_A_KEY", TEAM_A.1), ("TEAM_B_KEY", TEAM_B.1), ("OPERATOR_KEY", OPERATOR.1)];
    command.env("AZURE_KEY", "azure-key").envs(keys)
}

/// The clients' keys, which are in every gateway's environment.
pub(crate) const TEAM_A: (&str, &str) = ("api-key", "a-key-of-team-a-0001");
pub(crate) const TEAM_B: (&str, &str) = ("api-key", "a-key-of-team-b-0001");
pub(crate) const OPERATOR: (&str, &str) = ("api-key", "a-key-of-operators-0001");

/// An answer in wire format.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) String);

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

const HELLO: &str = r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":100}"#;
