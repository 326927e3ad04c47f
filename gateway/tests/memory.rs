//! The memory kept after a peak.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    emulate,
    served::{Azure, Gateway},
};

/// Resident memory in MiB that the program asked for: pages of its file do not count, which the
/// system may drop and whose number depends on the build.
fn resident(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Clients whose requests have reached a backend that does not answer.
fn crowd(gateway: &Gateway, count: usize, body: usize) -> Vec<TcpStream> {
    let text =
        format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "x".repeat(body));
    let request = format!(
        "POST /openai/deployments/hung/chat/completions HTTP/1.1\r\nhost: x\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len()
    );
    let clients = (0..count).map(|_| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    clients.collect()
}

#[test]
fn memory_goes_back_to_the_system_after_a_peak() {
    let azure = Azure::new("memory");
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n\
         [[models.text.standard]]\nname = \"text\"\nendpoint = \"{}\"\nkey = \"env:AZURE_KEY\"\n\
         [[models.hung.standard]]\nname = \"hung\"\nendpoint = \"http://{}\"\n\
         key = \"env:AZURE_KEY\"\n",
        azure.endpoint(0),
        hung.local_addr().unwrap(),
    );
    thread::spawn(move || {
        for stream in hung.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(
                move || while stream.read(&mut [0; 65_536]).is_ok_and(|read| read > 0) {},
            );
        }
    });
    // One second instead of ten, to keep the test short.
    let variables = [("_RJEM_MALLOC_CONF", "dirty_decay_ms:1000")];
    let gateway = Gateway::start_with(&emulate::file("memory/g.toml", &text), &variables);
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    thread::sleep(Duration::from_millis(500));
    let idle = resident(&gateway);
    let bodies = (400 * 200) >> 10; // MiB
    let clients = crowd(&gateway, 400, 200 << 10);
    gateway.eventually(|gateway| resident(gateway) > idle + bodies * 3 / 4);
    let peak = resident(&gateway);
    drop(clients);
    gateway.eventually(|gateway| resident(gateway) <= idle + bodies / 8);
    println!("{idle} MiB, {peak} MiB at the peak, {} MiB after it", resident(&gateway));
}
