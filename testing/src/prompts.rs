//! Request bodies as clients send them, and a reference estimate of their prompts.

use serde_json::{Value, json};

/// One request of every kind.
pub fn requests() -> Vec<(&'static str, Value)> {
    vec![
        ("chat", chat()),
        ("chat with tools", chat_with_tools()),
        ("chat with an image", chat_with_image()),
        ("chat, long", long_chat()),
        ("chat, not English", foreign_chat()),
        ("responses", responses()),
        ("embeddings", json!({"model": "text-embedding-3-small", "input": [PROSE, CODE, PROSE]})),
        ("embeddings of ids", json!({"input": (0..400).map(|n| n * 31).collect::<Vec<_>>()})),
        ("completions", json!({"prompt": CODE, "suffix": "}\n", "max_tokens": 64, "n": 2})),
    ]
}

/// The body as written by clients that escape all non-ASCII characters, such as Python's `json`.
pub fn ascii(body: &Value) -> String {
    let mut units = [0; 2];
    let mut text = String::new();
    for letter in body.to_string().chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// Tokens of a prompt, field by field: four bytes of text per token, four tokens around a message,
/// one for an id, 765 for an image, and the tools as compact JSON without its punctuation.
pub fn prompt_tokens(body: &Value) -> f64 {
    let prompts = ["messages", "input", "prompt", "suffix", "instructions"];
    let schemas = ["tools", "response_format", "text"];
    let marks = |mark: &char| !"{}[]:,\"".contains(*mark);
    let schema = |schema: &Value| schema.to_string().chars().filter(marks).count() as f64 / 4.0;
    prompts.iter().filter_map(|field| body.get(*field)).map(shown).sum::<f64>()
        + schemas.iter().filter_map(|field| body.get(*field)).map(schema).sum::<f64>()
}

fn shown(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.len() as f64 / 4.0,
        Value::Number(_) => 1.0,
        Value::Array(parts) => parts.iter().map(shown).sum(),
        Value::Object(part) => {
            let shown_in = |field: &&str| part.get(*field).map_or(0.0, shown);
            let fields =
                ["content", "text", "name", "arguments", "output", "tool_calls", "function"];
            let image = part.get("type").and_then(Value::as_str);
            let image = matches!(image, Some("image_url" | "input_image"));
            let message = part.contains_key("role");
            fields.iter().map(shown_in).sum::<f64>()
                + if message { 4.0 } else { 0.0 }
                + if image { 765.0 } else { 0.0 }
        }
        Value::Null | Value::Bool(_) => 0.0,
    }
}

fn chat() -> Value {
    json!({
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one sentence."},
            {"role": "user", "content": PROSE},
        ],
        "temperature": 0.7, "max_tokens": 800, "stream": true,
        "stream_options": {"include_usage": true}, "user": "b2c7a1f0-87ab-4f4e-9d0b-2a9d3f7c1e55",
    })
}

fn long_chat() -> Value {
    let turn = |n: u32| {
        let role = if n.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": if n.is_multiple_of(3) { CODE } else { PROSE }})
    };
    json!({"messages": (0..40).map(turn).collect::<Vec<_>>(), "max_completion_tokens": 4096})
}

/// A chat request whose body takes this many bytes, or a message less.
pub fn chat_of_bytes(bytes: usize) -> String {
    let mut body = json!({"model": "gpt-4o", "messages": [], "max_tokens": 800});
    let message = |n: usize| json!({"role": "user", "content": if n.is_multiple_of(3) { CODE } else { PROSE }});
    let mut left = bytes - body.to_string().len();
    let messages = body["messages"].as_array_mut().expect("an array");
    for message in (0..).map(message) {
        match left.checked_sub(message.to_string().len() + 1) {
            Some(less) => left = less,
            None => break,
        }
        messages.push(message);
    }
    body.to_string()
}

/// An answer of the Responses API of about so many bytes, as the service writes it.
pub fn response_of_bytes(bytes: usize) -> String {
    let answer = |text: &str| {
        format!(
            r#"{{"id":"resp_68af3c1b2d4081908c7e5a9b3f2d1c0e","object":"response","created_at":1764590000,"status":"completed","background":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"model":"gpt-4o","output":[{{"id":"msg_68af3c1c5a5c8190a1b2c3d4e5f60718","type":"message","status":"completed","content":[{{"type":"output_text","annotations":[],"logprobs":[],"text":{}}}],"role":"assistant"}}],"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{{"effort":null,"summary":null}},"safety_identifier":null,"service_tier":"default","store":true,"temperature":1.0,"text":{{"format":{{"type":"text"}},"verbosity":"medium"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{{"input_tokens":14,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":220,"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":234}},"user":null,"metadata":{{}}}}"#,
            Value::from(text)
        )
    };
    let room = bytes.saturating_sub(answer("").len());
    let text: String = PROSE.chars().cycle().take(room).collect();
    answer(&text)
}

fn foreign_chat() -> Value {
    json!({"messages": [
        {"role": "user", "content": "Сколько будет дважды два? Объясни подробно и с примерами."},
        {"role": "assistant", "content": "四です。二に二を掛けると四になります。🙂"},
        {"role": "user", "content": "Dziękuję! A ile to jest trzy razy trzy?"},
    ]})
}

fn chat_with_tools() -> Value {
    let call = json!({
        "id": "call_5aJ2kVhK0dGgHqYcW8mXw1Zt", "type": "function",
        "function": {"name": "current_weather", "arguments": "{\"city\":\"Kiel\",\"unit\":\"celsius\"}"},
    });
    json!({
        "messages": [
            {"role": "system", "content": "Use the tools. Do not guess the weather."},
            {"role": "user", "content": "What should I wear in Kiel today, and in Flensburg tomorrow?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_5aJ2kVhK0dGgHqYcW8mXw1Zt",
             "content": "{\"temperature\": 9, \"wind\": \"strong, from the west\", \"rain\": true}"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "current_weather",
            "description": "The weather in a city at this moment, as the nearest station has it.",
            "parameters": {"type": "object", "required": ["city"], "properties": {
                "city": {"type": "string", "description": "The city, without its country."},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            }},
        }}],
        "tool_choice": "auto",
    })
}

fn chat_with_image() -> Value {
    let url = format!("data:image/png;base64,{}", "iVBORw0KGgoAAAANSUhEUgAA".repeat(8_000));
    json!({"max_tokens": 300, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is written on the sign in this photograph?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
    ]}]})
}

fn responses() -> Value {
    json!({
        "model": "gpt-4o", "max_output_tokens": 500, "store": false,
        "instructions": "Review the code. Name the most serious fault first.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": CODE}]},
            {"type": "message", "role": "assistant", "id": "msg_68af3c", "status": "completed",
             "content": [{"type": "output_text", "text": PROSE, "annotations": []}]},
            {"type": "function_call_output", "call_id": "call_9f8e", "output": "3 tests failed"},
        ],
        "metadata": {"tenant": "contoso", "purpose": "review"},
    })
}

const PROSE: &str = "The tide went out at noon and left the \"old pier\" standing on its knees.\n\n\
    We walked along the wet sand for an hour, counted eleven kinds of shells, and found that the \
    lighthouse keeper's boat had drifted onto the sandbank again. Nobody seemed surprised.";

const CODE: &str = "fn median(values: &mut [f64]) -> Option<f64> {\n    values.sort_by(f64::total_cmp);\n\
    \tlet middle = values.len() / 2;\n    match values {\n        [] => None,\n        _ if values.len() % 2 == 1 \
    => Some(values[middle]),\n        _ => Some((values[middle - 1] + values[middle]) / 2.0), // \"even\"\n    }\n}\n";

/// Long requests, each of a kind that is hard to estimate from a part of it.
pub fn long_requests() -> Vec<(&'static str, Value)> {
    let chat = |messages: Vec<Value>| json!({"messages": messages, "max_tokens": 800});
    let user = |content: &str| json!({"role": "user", "content": content});
    let of = |text: &str, count: usize| chat(vec![user(text); count]);
    let foreign: String = foreign_chat()["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|message| message["content"].as_str())
        .collect();
    let data = |bytes: usize| "iVBORw0KGgoAAAANSUhEUgAA".repeat(bytes / 24);
    let image = |url: &str| {
        json!({"role": "user", "content": [
            {"type": "text", "text": PROSE},
            {"type": "image_url", "image_url": {"url": url}},
        ]})
    };
    let photo = |bytes: usize| image(&format!("data:image/png;base64,{}", data(bytes)));
    let call = chat_with_tools();
    let calls = call["messages"].as_array().expect("an array");
    let calls = vec![calls.clone(); 150].concat();
    let tool = |number: usize| {
        let mut tool = call["tools"][0].clone();
        tool["function"]["name"] = json!(format!("current_weather_{number}"));
        tool
    };
    let tools: Vec<_> = (0..60).map(tool).collect();
    let mixed = |first: Vec<Value>, rest: Vec<Value>| chat([first, rest].concat());
    let interleaved =
        (0..6).flat_map(|_| [vec![photo(20_000)], vec![user(&CODE.repeat(10)); 3]].concat());
    vec![
        ("prose", of(PROSE, 500)),
        ("code", of(CODE, 500)),
        ("not English", of(&foreign, 400)),
        ("short messages", of("and now?", 3_000)),
        ("one long text", json!({"input": PROSE.repeat(800)})),
        ("one text of base64", json!({"input": data(200_000)})),
        ("photographs in the body", chat(vec![photo(150_000); 4])),
        ("small photographs and code", chat(interleaved.collect())),
        ("photographs by address", chat(vec![image("https://contoso.example/a.png"); 300])),
        ("tool calls, many tools", json!({"messages": calls, "model": "gpt-4o", "tools": tools})),
        (
            "base64 in a tool's output",
            mixed(
                vec![user(PROSE); 60],
                [
                    vec![
                        json!({"role": "tool", "tool_call_id": "call_1", "content": data(60_000)}),
                    ],
                    vec![user(PROSE); 60],
                ]
                .concat(),
            ),
        ),
        (
            "16 KiB of short messages, then prose",
            mixed(vec![user("ok"); 500], vec![user(PROSE); 300]),
        ),
        ("16 KiB of an image, then code", mixed(vec![photo(16_000)], vec![user(CODE); 300])),
        ("16 KiB of prose, then an image", mixed(vec![user(PROSE); 50], vec![photo(200_000)])),
        ("a list of texts", json!({"input": vec![PROSE; 500]})),
        (
            "a list of token ids",
            json!({"input": (0..20_000).map(|n| n * 31 % 100_000).collect::<Vec<_>>()}),
        ),
    ]
}
