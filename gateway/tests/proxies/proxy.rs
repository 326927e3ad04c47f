//! A proxy on a loopback port that resolves every name to one address, and records what it saw.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// It runs until the test process ends.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The requests to the proxy itself.
    asked: Vec<String>,
    /// The bytes that passed through, from the gateway.
    passed: Vec<u8>,
}

/// How it reacts to a request.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    Connect,
    /// Uses SOCKS 5, for a user and a password.
    Socks,
    /// Answers this instead.
    Say(&'static str),
    Hang,
}

impl Proxy {
    /// `lead` maps a name and its port to an address.
    pub(super) fn new(
        manner: Manner,
        lead: impl Fn(&str) -> SocketAddr + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Seen>>::default());
        let (kept, lead) = (Arc::clone(&seen), Arc::new(lead));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, lead) = (Arc::clone(&kept), Arc::clone(&lead));
                // Tests check the end of a connection elsewhere.
                thread::spawn(move || serve(stream, manner, &seen, &*lead));
            }
        });
        Self { address, seen }
    }

    /// A proxy that leads everything to one address.
    pub(super) fn to(manner: Manner, target: SocketAddr) -> Self {
        Self::new(manner, move |_| target)
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.seen.lock().unwrap().asked.clone()
    }

    pub(super) fn passed(&self) -> Vec<u8> {
        self.seen.lock().unwrap().passed.clone()
    }
}

fn serve(
    mut client: TcpStream,
    manner: Manner,
    seen: &Arc<Mutex<Seen>>,
    lead: &dyn Fn(&str) -> SocketAddr,
) -> io::Result<()> {
    let target = match manner {
        Manner::Socks => socks(&mut client, seen)?,
        _ => {
            let head = head(&mut client)?;
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            seen.lock().unwrap().asked.push(head);
            target
        }
    };
    match manner {
        Manner::Say(text) => return client.write_all(text.as_bytes()),
        Manner::Hang => {
            thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Manner::Connect => {
            client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n")?;
        }
        Manner::Socks => client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?,
    }
    let mut server = TcpStream::connect(lead(&target))?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut back, &mut to_client);
        to_client.shutdown(Shutdown::Write)
    });
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return server.shutdown(Shutdown::Write);
        }
        seen.lock().unwrap().passed.extend_from_slice(&buffer[..read]);
        server.write_all(&buffer[..read])?;
    }
}

fn head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn socks(client: &mut TcpStream, seen: &Arc<Mutex<Seen>>) -> io::Result<String> {
    let text = |client: &mut TcpStream| {
        let mut length = [0];
        client.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(length[0])];
        client.read_exact(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut byte = [0];
    client.read_exact(&mut byte)?;
    text(client)?;
    client.write_all(&[5, 2])?;
    client.read_exact(&mut byte)?;
    let credentials = format!("{}:{}", text(client)?, text(client)?);
    client.write_all(&[1, 0])?;
    let mut request = [0; 4];
    client.read_exact(&mut request)?;
    assert_eq!(request, [5, 1, 0, 3], "a name, to be resolved here");
    let name = text(client)?;
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    let target = format!("{name}:{}", u16::from_be_bytes(port));
    seen.lock().unwrap().asked.push(format!("{target} as {credentials}"));
    Ok(target)
}
