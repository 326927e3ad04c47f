//! Which clients get one of the concurrent places if some take all they can get.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    emulate,
    served::{Azure, Gateway, ask},
};

/// `text` is answered immediately, `hung` never.
struct Scene {
    _azure: Azure,
    config: PathBuf,
    gateway: Gateway,
}

impl Scene {
    fn new(name: &str, settings: &str) -> Self {
        let azure = Azure::new(name);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let hung = silent.local_addr().unwrap();
        thread::spawn(move || silent.incoming().map(Result::unwrap).collect::<Vec<_>>());
        let model = |name: &str, endpoint: &str| {
            format!(
                "[[models.{name}.standard]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\n\
                 key = \"env:AZURE_KEY\"\n"
            )
        };
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\nlimits.concurrency = 20\n{settings}\n{}{}",
            model("text", azure.endpoint(0)),
            model("hung", &format!("http://{hung}")),
        );
        let config = emulate::file(&format!("{name}/g.toml"), &text);
        let gateway = Gateway::start(&config);
        Self { _azure: azure, config, gateway }
    }

    /// Sends this many requests to `hung` and waits until all but `places` of them are refused;
    /// returns those in flight and one of the refusals.
    fn crowd(&self, count: usize, key: &str, places: usize) -> (Vec<TcpStream>, Option<String>) {
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\napi-key: {key}\r\ncontent-length: {}\r\n\r\n{BODY}",
            path("hung"),
            BODY.len()
        );
        let streams = (0..count).map(|_| {
            let mut stream = TcpStream::connect(self.gateway.address()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            stream
        });
        let mut in_flight = streams.collect::<Vec<_>>();
        let mut refusal = None;
        let mut buffer = [0; 4_096];
        let mut read = |mut stream: TcpStream| match stream.read(&mut buffer) {
            Ok(length) => {
                refusal = Some(String::from_utf8_lossy(&buffer[..length]).into_owned());
                None
            }
            Err(_) => Some(stream),
        };
        // A round takes at least 50 ms for each request in flight.
        for _ in 0..20 {
            if in_flight.len() > places {
                in_flight = in_flight.into_iter().filter_map(&mut read).collect();
            }
        }
        // No further one may be refused.
        in_flight = in_flight.into_iter().filter_map(&mut read).collect();
        (in_flight, refusal)
    }

    fn status(&self, key: &str) -> u16 {
        self.gateway.chat("text", &[("api-key", key)]).status()
    }
}

fn path(model: &str) -> String {
    format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21")
}

fn keyed(more: &str) -> String {
    // The keys are `a`, `b` and `c`.
    let hash = |key: &str| match key {
        "a" => "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "b" => "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
        _ => "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6",
    };
    let client = |key| format!("[clients.{key}]\nkeys = [\"sha256:{}\"]\n", hash(key));
    format!(
        "[clients.a]\nkeys = [\"sha256:{}\"]\n{more}\n{}{}",
        hash("a"),
        client("b"),
        client("c")
    )
}

#[test]
fn a_client_that_takes_all_it_can_get_leaves_room_for_others() {
    let scene = Scene::new("places-greedy", &keyed(""));
    let (mine, refusal) = scene.crowd(40, "a", 10);
    assert_eq!(mine.len(), 10, "half of 20");
    let refusal = refusal.expect("a refusal").to_lowercase();
    assert!(refusal.starts_with("http/1.1 503 "), "{refusal}");
    assert!(refusal.contains("retry-after: 1\r\n"), "{refusal}");
    assert!(refusal.contains("\"serverbusy\"") && refusal.contains("this client"), "{refusal}");
    assert_eq!(scene.status("a"), 503);
    assert_eq!(scene.status("b"), 200);
    let (theirs, _) = scene.crowd(40, "b", 5);
    assert_eq!(theirs.len(), 5, "half of the rest");
    assert_eq!(scene.status("c"), 200);
    drop((mine, theirs));
    scene.gateway.eventually(|_| scene.status("a") == 200);
}

#[test]
fn a_client_may_have_a_limit_of_its_own_which_a_reload_changes() {
    let scene = Scene::new("places-own", &keyed("concurrency = 3"));
    let (mine, refusal) = scene.crowd(8, "a", 3);
    assert_eq!((mine.len(), refusal.is_some()), (3, true));
    let text = fs::read_to_string(&scene.config).unwrap();
    fs::write(&scene.config, text.replace("concurrency = 3", "concurrency = 15")).unwrap();
    scene.gateway.eventually(|_| scene.status("a") == 200);
    let (more, _) = scene.crowd(20, "a", 12);
    assert_eq!(more.len(), 12, "those from before the reload count");
}

#[test]
fn who_is_alone_may_take_every_place_and_so_may_all_with_a_share_of_one() {
    let alone = keyed("").split("[clients.b]").next().unwrap().to_owned();
    let scene = Scene::new("places-alone", &alone);
    assert_eq!(scene.crowd(30, "a", 20).0.len(), 20);
    let scene = Scene::new("places-all", &format!("limits.client_share = 1\n{}", keyed("")));
    let (_places, refusal) = scene.crowd(30, "a", 20);
    assert!(refusal.unwrap().contains("The gateway already has 20 requests in flight."));
}

/// Sends from another address of this machine.
#[cfg(target_os = "linux")]
async fn status_from(host: [u8; 4], gateway: &Gateway) -> u16 {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((host, 0))).unwrap();
    let mut stream = socket.connect(gateway.address().parse().unwrap()).await.unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n\
         {BODY}",
        path("text"),
        BODY.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_keys_no_address_takes_every_place() {
    let scene = Scene::new("places-open", "clients.open = true");
    let (mine, refusal) = scene.crowd(40, "any", 10);
    assert_eq!((mine.len(), refusal.is_some()), (10, true));
    assert_eq!(status_from([127, 0, 0, 1], &scene.gateway).await, 503);
    assert_eq!(status_from([127, 0, 0, 2], &scene.gateway).await, 200);
}

#[test]
fn who_asks_now_and_then_is_served_while_others_ask_all_the_time() {
    let scene = Scene::new("places-fair", &keyed(""));
    let busy = ["a", "b"].into_iter().flat_map(|key| (0..12).map(move |_| key)).map(|key| {
        let address = scene.gateway.address().to_owned();
        thread::spawn(move || {
            let statuses = (0..60).map(|_| {
                let headers = [("api-key", key)];
                ask(&address, "POST", &path("text"), &headers, BODY).unwrap().status()
            });
            statuses.filter(|status| *status == 200).count()
        })
    });
    let busy = busy.collect::<Vec<_>>();
    let statuses = (0..60).map(|_| scene.status("c")).collect::<Vec<_>>();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let served = busy.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
    assert!(served > 0);
}

const BODY: &str = r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":9}"#;
