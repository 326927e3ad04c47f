//! What the upstreams and the clients share: how a stream's events are written and read.

/// The marks of one stream: which request it answers, and which of its events this is.
///
/// An event is `data: {"user":"ID","n":N,...}`; the last line of a whole stream is `data: [DONE]`.
#[derive(Debug, Default)]
pub struct Reading {
    rest: Vec<u8>,
    expected: u64,
    /// Whether `data: [DONE]` came.
    pub done: bool,
    /// What was wrong with the order of the events, if anything.
    pub wrong: Option<String>,
}

impl Reading {
    /// Takes in what arrived for the request `id`.
    pub fn take(&mut self, id: &str, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(id, &String::from_utf8_lossy(&line));
        }
    }

    /// How many events came.
    pub const fn events(&self) -> u64 {
        self.expected
    }

    fn line(&mut self, id: &str, line: &str) {
        let Some(data) = line.trim_end().strip_prefix("data: ") else {
            return;
        };
        if self.done {
            self.wrong = Some(format!("an event after the end: {data}"));
        } else if data == "[DONE]" {
            self.done = true;
        } else {
            self.event(id, data);
        }
    }

    fn event(&mut self, id: &str, data: &str) {
        let event: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        if event["user"].as_str() != Some(id) {
            self.wrong = Some(format!("an event of another request: {data}"));
        } else if event["n"].as_u64() != Some(self.expected) {
            self.wrong = Some(format!("event {} came instead of {}", event["n"], self.expected));
        }
        self.expected += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_event_is_seen_however_the_bytes_are_cut() {
        let text = b"data: {\"user\":\"a\",\"n\":0}\n\ndata: {\"user\":\"a\",\"n\":2}\n\n";
        let mut reading = Reading::default();
        for byte in text {
            reading.take("a", &[*byte]);
        }
        assert_eq!(reading.events(), 2);
        assert!(reading.wrong.is_some() && !reading.done);
    }
}
