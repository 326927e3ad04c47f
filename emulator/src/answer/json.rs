//! Success bodies in one piece.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    Refusal,
    answer::{Success, words},
    registry::Place,
    routes::Operation,
};

/// The body of a success without streaming.
pub(crate) fn whole(success: &Success) -> String {
    match success.operation {
        Operation::Completions => completion(success),
        Operation::Embeddings => embeddings(success),
        Operation::Responses => response(success, "completed"),
        operation if operation.is_media() => media(success),
        _ => chat(success),
    }
}

/// The response object in state `status`; it has output and usage only when completed.
pub(crate) fn response(success: &Success, status: &str) -> String {
    let Success { id, model, created, .. } = success;
    let (output, usage) = if status == "completed" {
        (message(success) + &reasoning(success), success.responses_usage())
    } else {
        (String::new(), "null".to_owned())
    };
    let tier = success.service_tier();
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{created},"status":"{status}","error":null,"incomplete_details":null,"model":{model},"output":[{output}],"usage":{usage},"metadata":{{}}{tier}}}"#
    )
}

/// The object of a refused response; the message is a JSON string.
pub(crate) fn failed_response(success: &Success, refusal: Refusal, message: &Value) -> String {
    let code = Value::from(refusal.code());
    let error = format!(r#""error":{{"code":{code},"message":{message}}}"#);
    response(success, "failed").replacen(r#""error":null"#, &error, 1)
}

/// The output item with the answer's text.
pub(crate) fn message(success: &Success) -> String {
    let text = words(success.cost.completion);
    format!(
        r#"{{"id":"msg_{}","type":"message","status":"completed","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}"#,
        success.id
    )
}

/// The encrypted reasoning that follows, if requested: only the resource of the id can read it.
fn reasoning(success: &Success) -> String {
    if !success.include_encrypted {
        return String::new();
    }
    let id = &success.id;
    format!(r#",{{"id":"rs_{id}","type":"reasoning","summary":[],"encrypted_content":"enc_{id}"}}"#)
}

/// The deployments of a resource, in the format of either list operation.
pub(crate) fn listing(place: &Place, operation: Operation) -> String {
    let mut list = String::from(r#"{"object":"list","data":["#);
    for (index, site) in place.sites.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let id = Value::from(site.name.as_str());
        let model = &site.model_json;
        let _ = match operation {
            Operation::Deployments => write!(
                list,
                r#"{comma}{{"object":"deployment","id":{id},"model":{model},"status":"succeeded"}}"#
            ),
            _ => write!(
                list,
                r#"{comma}{{"object":"model","id":{model},"lifecycle_status":"generally-available","status":"succeeded"}}"#
            ),
        };
    }
    list.push_str("]}");
    list
}

/// A video in the form that its resource stores.
pub(crate) fn video(success: &Success, status: &str) -> Value {
    let Success { id, created, .. } = success;
    json!({"id": format!("video_{id}"), "object": "video", "created_at": created, "status": status})
}

fn media(success: &Success) -> String {
    match success.operation {
        Operation::Transcriptions | Operation::Translations => json!({"text": words(4)}),
        // "hi" in base64: clients do not decode it.
        Operation::Images | Operation::ImageEdits => {
            json!({"created": success.created, "data": [{"b64_json": "aGk="}]})
        }
        Operation::Videos => video(success, "queued"),
        _ => return words(4),
    }
    .to_string()
}

fn chat(success: &Success) -> String {
    let Success { id, model, created, .. } = success;
    let text = words(success.cost.completion);
    let (reason, usage) = (success.finish_reason(), success.usage());
    let tier = success.service_tier();
    format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{created},"model":{model},"system_fingerprint":"fp_emulator","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"{reason}"}}],"usage":{usage}{tier}}}"#
    )
}

fn completion(success: &Success) -> String {
    let Success { id, model, created, .. } = success;
    let text = words(success.cost.completion);
    let (reason, usage) = (success.finish_reason(), success.usage());
    format!(
        r#"{{"id":"cmpl-{id}","object":"text_completion","created":{created},"model":{model},"choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"{reason}"}}],"usage":{usage}}}"#
    )
}

fn embeddings(success: &Success) -> String {
    let mut data = String::new();
    for index in 0..success.inputs {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(data, r#"{comma}{{"object":"embedding","index":{index},"embedding":["#);
        for dimension in 0..success.dimensions {
            let comma = if dimension == 0 { "" } else { "," };
            // Any fixed numbers between -0.5 and 0.5 will do.
            let value = ((index * 31 + dimension * 17) % 101) as f64 / 100.0 - 0.5;
            let _ = write!(data, "{comma}{value:.2}");
        }
        data.push_str("]}");
    }
    let model = &success.model;
    let prompt = success.cost.prompt;
    format!(
        r#"{{"object":"list","data":[{data}],"model":{model},"usage":{{"prompt_tokens":{prompt},"total_tokens":{prompt}}}}}"#
    )
}
