//! Sends every request of `requests.http` to the demonstration.

use std::{collections::HashMap, process::Stdio};

use crate::started::Started;

/// A request of the file, with variables replaced.
#[derive(Debug)]
struct Asked {
    title: String,
    method: String,
    url: String,
    headers: Vec<String>,
    body: String,
}

/// Parses the file like the REST Client: `@name = value`, requests separated by `###`.
fn requests(text: &str, known: &[(&str, &str)]) -> Vec<Asked> {
    let mut variables: HashMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix('@')?.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    variables.extend(known.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let replaced = |text: &str| {
        variables.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        })
    };
    text.split("\n### ").skip(1).map(|part| asked(&replaced(part))).collect()
}

fn asked(part: &str) -> Asked {
    let (title, rest) = part.split_once('\n').unwrap();
    let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let mut lines = head.lines().filter(|line| !line.starts_with('#'));
    let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
    Asked {
        title: title.to_owned(),
        method: method.to_owned(),
        url: url.to_owned(),
        headers: lines.map(str::to_owned).collect(),
        body: body.trim_end().to_owned(),
    }
}

/// The statuses that the title mentions; 200 if it mentions none.
fn expected(title: &str) -> Vec<&str> {
    let words = title.split(|c: char| !c.is_ascii_digit());
    let statuses: Vec<_> = words.filter(|word| word.len() == 3).collect();
    if statuses.is_empty() { vec!["200"] } else { statuses }
}

/// The head and the body of the answer.
fn send(gateway: &str, asked: &Asked) -> (String, String) {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    let path = asked.url.strip_prefix(gateway).unwrap_or_else(|| panic!("{asked:?}"));
    let headers: String = asked.headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "{} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n{}",
        asked.method,
        asked.body.len(),
        asked.body
    );
    let mut stream = TcpStream::connect(gateway.trim_start_matches("http://")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn each_is_answered_as_its_title_says_by_the_gateway_without_a_file() {
    let mut demo = Started::with(&["serve", "--listen", "127.0.0.1:0"], |command| {
        command.stderr(Stdio::null())
    });
    assert!(demo.line().starts_with("curl "));
    let gateway = demo.endpoint();
    let known = [("gateway", &*gateway), ("key", "any")];
    let requests = requests(include_str!("../../requests.http"), &known);
    assert!(requests.len() >= 14, "{requests:?}");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let answers = requests.iter().map(|asked| scope.spawn(|| send(&gateway, asked)));
        answers.collect::<Vec<_>>().into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    for (asked, (head, body)) in requests.iter().zip(answers) {
        let left = format!("{} {:?} {}", asked.url, asked.headers, asked.body);
        assert!(!left.contains("{{"), "a variable is not set: {left}");
        let status = head.split(' ').nth(1).unwrap();
        assert!(expected(&asked.title).contains(&status), "{asked:?}\n{head}\n{body}");
        for word in ["x-spillover-trace", "retry-after-ms"] {
            let is_promised =
                asked.title.contains(word) && (word != "retry-after-ms" || status == "429");
            assert!(!is_promised || head.contains(&format!("\n{word}: ")), "{asked:?}\n{head}");
        }
        if asked.body.contains("\"stream\": true") {
            assert!(head.contains("content-type: text/event-stream"), "{asked:?}\n{head}");
            assert!(body.contains("\"usage\":{"), "{asked:?}\n{body}");
        }
    }
}
