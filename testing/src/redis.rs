//! A `redis-server` of its own for a test, on a random port of this machine: or the program that
//! `SPILLOVER_REDIS_SERVER` names, such as a `valkey-server`.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server with more `arguments`. `None`, with a message, if this machine has none, unless
    /// `CI` is set.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let port = free_port();
        match spawn(port, &arguments) {
            Ok(child) => {
                let server = Self { child, port, arguments };
                server.until_it_answers();
                Some(server)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(std::env::var_os("CI").is_none(), "there is no redis-server: {error}");
                eprintln!("skipped: there is no redis-server on this machine");
                None
            }
            Err(error) => panic!("redis-server: {error}"),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The answer to a command, as the protocol has it (RESP2): one line, or the text of a bulk string.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).expect("a server that answers")
    }

    fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(packed(words).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(length) = line.strip_prefix('$').and_then(|it| it.trim().parse::<usize>().ok())
        {
            let mut text = vec![0; length];
            reader.read_exact(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Makes the user `spillover`, who may do what the page of fleets allows, and `more`.
    pub fn allow(&self, password: &str, more: &[&str]) {
        let page = include_str!("../../docs/fleet.md");
        let (_, rules) = page.split_once(">PASSWORD ").expect("a rule");
        let rules = rules.lines().next().expect("a line");
        let password = format!(">{password}");
        let mut words = vec!["ACL", "SETUSER", "spillover", "on", &*password];
        words.extend(rules.split(' ').chain(more.iter().copied()));
        assert_eq!(self.command(&words), "+OK");
    }

    /// Sends a signal by its name: the process sleeps after `STOP` and goes on after `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill").success());
    }

    /// Ends the server at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Sends a command whose answer comes later than a test can wait.
    pub fn send(&self, words: &[&str]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.write_all(packed(words).as_bytes()).expect("it reads");
    }

    /// Starts it again after [`kill`](Self::kill), without its data.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, &self.arguments).expect("it was started before");
        self.until_it_answers();
    }

    fn until_it_answers(&self) {
        for _ in 0..1_000 {
            if self.try_command(&["PING"]).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer");
    }
}

/// Sentinels of one master, of which two have to agree that it is gone. Dropping it ends them.
pub struct Sentinels {
    children: Vec<Child>,
    ports: Vec<u16>,
    folder: PathBuf,
}

impl Sentinels {
    /// Three sentinels that call the server at `port` by this `name`. They take it for gone after half a
    /// second.
    pub fn of(name: &str, port: u16) -> Self {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("spillover-sentinels-{id}-{port}"));
        fs::create_dir_all(&folder).expect("a folder");
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let start = |own: &u16| {
            let file = folder.join(format!("{own}.conf"));
            let text = format!(
                "port {own}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {name} 500\n\
                 sentinel failover-timeout {name} 3000\n"
            );
            fs::write(&file, text).expect("a file");
            let mut command = Command::new(program());
            command.arg(&file).arg("--sentinel").stdout(Stdio::null());
            command.spawn().expect("redis-server runs as a sentinel, too")
        };
        let children = ports.iter().map(start).collect();
        Self { children, ports, folder }
    }

    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect()
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A cluster of three primaries, each with a replica. Dropping it ends them.
pub struct Cluster {
    /// The primaries first.
    pub servers: Vec<Server>,
    folder: PathBuf,
}

impl Cluster {
    /// A primary that is gone for a second is replaced. `None` as for [`Server::start`].
    pub fn start() -> Option<Self> {
        let id = std::process::id();
        let folder = std::env::temp_dir().join(format!("spillover-cluster-{id}-{}", free_port()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut servers = Vec::new();
        for number in 0..6 {
            let file = folder.join(format!("{number}.conf"));
            let (file, bus) = (file.to_string_lossy(), free_port().to_string());
            servers.push(Server::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                &file,
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
            ])?);
        }
        let cluster = Self { servers, folder };
        let all = cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(all).args(["--cluster-replicas", "1"]);
        let status = command.arg("--cluster-yes").stdout(Stdio::null()).status();
        assert!(status.expect("redis-cli is with redis-server").success(), "no cluster");
        let is_ready = |server: &Server| {
            let has_all = server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            let links = server.command(&["INFO", "replication"]);
            has_all && (links.contains("connected_slaves:1") || links.contains("link_status:up"))
        };
        for _ in 0..1_000 {
            if cluster.servers.iter().all(is_ready) {
                return Some(cluster);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the cluster is not complete");
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// The index of the primary that has a key which matches `pattern`, and the key.
    pub fn find(&self, pattern: &str) -> Option<(usize, String)> {
        const FIND: &str = "return redis.call('KEYS', ARGV[1])[1] or ''";
        (0..self.servers.len()).find_map(|index| {
            let server = &self.servers[index];
            let is_primary = server.command(&["INFO", "replication"]).contains("role:master");
            let key = is_primary.then(|| server.command(&["EVAL", FIND, "0", pattern]))?;
            (!key.is_empty()).then_some((index, key))
        })
    }

    /// Moves the slot of `key` from one primary to another.
    pub fn move_slot(&self, key: &str, from: usize, to: usize) {
        let (from, to) = (&self.servers[from], &self.servers[to]);
        let slot = from.command(&["CLUSTER", "KEYSLOT", key]);
        let slot = slot.trim_start_matches(':');
        let [from_id, to_id] = [from, to].map(|server| server.command(&["CLUSTER", "MYID"]));
        let set = |server: &Server, what: &[&str]| {
            let words = [&["CLUSTER", "SETSLOT", slot][..], what].concat();
            assert_eq!(server.command(&words), "+OK", "{what:?}");
        };
        set(to, &["IMPORTING", &from_id]);
        set(from, &["MIGRATING", &to_id]);
        let port = to.port.to_string();
        let moved = from.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert!(moved == "+OK" || moved == "+NOKEY", "{moved}");
        set(to, &["NODE", &to_id]);
        set(from, &["NODE", &to_id]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A server that is stopped would not end.
        self.servers.clear();
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn spawn(port: u16, arguments: &[String]) -> std::io::Result<Child> {
    // A replica writes its master's data into a file.
    let (folder, file) = (std::env::temp_dir(), format!("spillover-test-{port}.rdb"));
    let port = port.to_string();
    Command::new(program())
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(["--dbfilename", &file])
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
}

fn program() -> OsString {
    std::env::var_os("SPILLOVER_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A command as the protocol has it.
fn packed(words: &[&str]) -> String {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    request
}

/// A port that nothing listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let file = format!("spillover-test-{}.rdb", self.port);
        drop(fs::remove_file(std::env::temp_dir().join(file)));
    }
}
