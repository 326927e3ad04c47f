//! Success bodies in one piece.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    Refusal,
    answer::{Speech, words},
    registry::Place,
    routes::Operation,
};

/// The body of a success without streaming.
pub(crate) fn whole(speech: &Speech) -> String {
    match speech.operation {
        Operation::Completions => completion(speech),
        Operation::Embeddings => embeddings(speech),
        Operation::Responses => response(speech, "completed"),
        operation if operation.is_media() => media(speech),
        _ => chat(speech),
    }
}

/// The response object in state `status`; it has output and usage only when completed.
pub(crate) fn response(speech: &Speech, status: &str) -> String {
    let Speech { id, model, created, .. } = speech;
    let (output, usage) = if status == "completed" {
        (message(speech) + &reasoning(speech), speech.responses_usage())
    } else {
        (String::new(), "null".to_owned())
    };
    let tier = speech.service_tier();
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{created},"status":"{status}","error":null,"incomplete_details":null,"model":{model},"output":[{output}],"usage":{usage},"metadata":{{}}{tier}}}"#
    )
}

/// The object of a refused response; the message is a JSON string.
pub(crate) fn failed_response(speech: &Speech, refusal: Refusal, message: &Value) -> String {
    let code = Value::from(refusal.code());
    let error = format!(r#""error":{{"code":{code},"message":{message}}}"#);
    response(speech, "failed").replacen(r#""error":null"#, &error, 1)
}

/// The output item with the answer's text.
pub(crate) fn message(speech: &Speech) -> String {
    let text = words(speech.bill.completion);
    format!(
        r#"{{"id":"msg_{}","type":"message","status":"completed","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}"#,
        speech.id
    )
}

/// The encrypted reasoning that follows, if requested: only the resource of the id can read it.
fn reasoning(speech: &Speech) -> String {
    if !speech.include_encrypted {
        return String::new();
    }
    let id = &speech.id;
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
pub(crate) fn video(speech: &Speech, status: &str) -> Value {
    let Speech { id, created, .. } = speech;
    json!({"id": format!("video_{id}"), "object": "video", "created_at": created, "status": status})
}

fn media(speech: &Speech) -> String {
    match speech.operation {
        Operation::Transcriptions | Operation::Translations => json!({"text": words(4)}),
        // "hi" in base64: clients do not decode it.
        Operation::Images | Operation::ImageEdits => {
            json!({"created": speech.created, "data": [{"b64_json": "aGk="}]})
        }
        Operation::Videos => video(speech, "queued"),
        _ => return words(4),
    }
    .to_string()
}

fn chat(speech: &Speech) -> String {
    let Speech { id, model, created, .. } = speech;
    let text = words(speech.bill.completion);
    let (reason, usage) = (speech.finish_reason(), speech.usage());
    let tier = speech.service_tier();
    format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{created},"model":{model},"system_fingerprint":"fp_emulator","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"{reason}"}}],"usage":{usage}{tier}}}"#
    )
}

fn completion(speech: &Speech) -> String {
    let Speech { id, model, created, .. } = speech;
    let text = words(speech.bill.completion);
    let (reason, usage) = (speech.finish_reason(), speech.usage());
    format!(
        r#"{{"id":"cmpl-{id}","object":"text_completion","created":{created},"model":{model},"choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"{reason}"}}],"usage":{usage}}}"#
    )
}

fn embeddings(speech: &Speech) -> String {
    let mut data = String::new();
    for index in 0..speech.inputs {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(data, r#"{comma}{{"object":"embedding","index":{index},"embedding":["#);
        for dimension in 0..speech.dimensions {
            let comma = if dimension == 0 { "" } else { "," };
            // Any fixed numbers between -0.5 and 0.5 will do.
            let value = ((index * 31 + dimension * 17) % 101) as f64 / 100.0 - 0.5;
            let _ = write!(data, "{comma}{value:.2}");
        }
        data.push_str("]}");
    }
    let model = &speech.model;
    let prompt = speech.bill.prompt;
    format!(
        r#"{{"object":"list","data":[{data}],"model":{model},"usage":{{"prompt_tokens":{prompt},"total_tokens":{prompt}}}}}"#
    )
}
