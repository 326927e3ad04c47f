//! The operations of the API, each with its methods.

use tower_spillover::azure::ApiPath;

/// The methods of a path, in either grammar; none if the path is not the API's.
pub(crate) fn methods(path: &str) -> impl Iterator<Item = &str> {
    let rest = ApiPath::of(path).operation(path).unwrap_or_default();
    methods_of(rest).unwrap_or_default().split(' ').filter(|method| !method.is_empty())
}

fn methods_of(rest: &str) -> Option<&'static str> {
    OPERATIONS.iter().find(|(path, _)| is_like(path, rest)).map(|&(_, methods)| methods)
}

/// Whether `path` has the segments of `pattern`, where a segment in braces matches any one; a
/// trailing slash is allowed.
pub(crate) fn is_like(pattern: &str, path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    if pattern == path {
        return true;
    }
    // The whole list is searched for each request: most patterns differ in their first letter.
    let begin = pattern.as_bytes().first();
    if begin != path.as_bytes().first() && begin != Some(&b'{') {
        return false;
    }
    let mut segments = path.split('/');
    let mut fits = |expected: &str| match segments.next() {
        Some(segment) if expected.starts_with('{') => !segment.is_empty(),
        segment => segment == Some(expected),
    };
    pattern.split('/').all(&mut fits) && segments.next().is_none()
}

/// Azure pages "Azure OpenAI in Foundry Models v1 REST API reference" and "Azure OpenAI REST API
/// reference"; a path precedes those with braces that match it too. `DELETE models/{id}` is left
/// out: it deletes a fine-tuned model of any client.
const OPERATIONS: &[(&str, &str)] = &[
    ("chat/completions", "GET POST"),
    ("chat/completions/{id}", "DELETE GET POST"),
    ("chat/completions/{id}/messages", "GET"),
    ("responses", "GET POST"),
    ("responses/compact", "POST"),
    ("responses/input_tokens", "POST"),
    ("responses/{id}", "DELETE GET"),
    ("responses/{id}/cancel", "POST"),
    ("responses/{id}/input_items", "GET"),
    ("completions", "POST"),
    ("embeddings", "POST"),
    ("moderations", "POST"),
    ("audio/transcriptions", "POST"),
    ("audio/translations", "POST"),
    ("audio/speech", "POST"),
    ("images/generations", "POST"),
    ("images/edits", "POST"),
    ("images/variations", "POST"),
    ("models", "GET"),
    ("models/{id}", "GET"),
    ("conversations", "GET POST"),
    ("conversations/{id}", "DELETE GET POST"),
    ("conversations/{id}/items", "GET POST"),
    ("conversations/{id}/items/{item}", "DELETE GET"),
    ("files", "GET POST"),
    ("files/import", "POST"),
    ("files/{id}", "DELETE GET"),
    ("files/{id}/content", "GET"),
    ("uploads", "POST"),
    ("uploads/{id}/parts", "POST"),
    ("uploads/{id}/complete", "POST"),
    ("uploads/{id}/cancel", "POST"),
    ("batches", "GET POST"),
    ("batches/{id}", "GET"),
    ("batches/{id}/cancel", "POST"),
    ("assistants", "GET POST"),
    ("assistants/{id}", "DELETE GET POST"),
    ("threads", "POST"),
    ("threads/runs", "POST"),
    ("threads/{id}", "DELETE GET POST"),
    ("threads/{id}/messages", "GET POST"),
    ("threads/{id}/messages/{message}", "DELETE GET POST"),
    ("threads/{id}/runs", "GET POST"),
    ("threads/{id}/runs/{run}", "GET POST"),
    ("threads/{id}/runs/{run}/cancel", "POST"),
    ("threads/{id}/runs/{run}/submit_tool_outputs", "POST"),
    ("threads/{id}/runs/{run}/steps", "GET"),
    ("threads/{id}/runs/{run}/steps/{step}", "GET"),
    ("vector_stores", "GET POST"),
    ("vector_stores/{id}", "DELETE GET POST"),
    ("vector_stores/{id}/search", "POST"),
    ("vector_stores/{id}/files", "GET POST"),
    ("vector_stores/{id}/files/{file}", "DELETE GET POST"),
    ("vector_stores/{id}/files/{file}/content", "GET"),
    ("vector_stores/{id}/file_batches", "POST"),
    ("vector_stores/{id}/file_batches/{batch}", "GET"),
    ("vector_stores/{id}/file_batches/{batch}/cancel", "POST"),
    ("vector_stores/{id}/file_batches/{batch}/files", "GET"),
    ("containers", "GET POST"),
    ("containers/{id}", "DELETE GET"),
    ("containers/{id}/files", "GET POST"),
    ("containers/{id}/files/{file}", "DELETE GET"),
    ("containers/{id}/files/{file}/content", "GET"),
    ("skills", "GET POST"),
    ("skills/{id}", "DELETE GET POST"),
    ("skills/{id}/content", "GET"),
    ("skills/{id}/versions", "GET POST"),
    ("skills/{id}/versions/{version}", "DELETE GET"),
    ("skills/{id}/versions/{version}/content", "GET"),
    ("prompts", "GET POST"),
    ("prompts/{id}", "DELETE GET POST"),
    ("prompts/{id}/versions", "GET POST"),
    ("prompts/{id}/versions/{version}", "DELETE GET"),
    ("fine_tuning/jobs", "GET POST"),
    ("fine_tuning/jobs/{id}", "DELETE GET"),
    ("fine_tuning/jobs/{id}/cancel", "POST"),
    ("fine_tuning/jobs/{id}/pause", "POST"),
    ("fine_tuning/jobs/{id}/resume", "POST"),
    ("fine_tuning/jobs/{id}/events", "GET"),
    ("fine_tuning/jobs/{id}/checkpoints", "GET"),
    ("fine_tuning/jobs/{id}/checkpoints/{checkpoint}/copy", "GET POST"),
    ("fine_tuning/alpha/graders/run", "POST"),
    ("fine_tuning/alpha/graders/validate", "POST"),
    ("evals", "GET POST"),
    ("evals/{id}", "DELETE GET POST"),
    ("evals/{id}/runs", "GET POST"),
    ("evals/{id}/runs/{run}", "DELETE GET POST"),
    ("evals/{id}/runs/{run}/cancel", "POST"),
    ("evals/{id}/runs/{run}/output_items", "GET"),
    ("evals/{id}/runs/{run}/output_items/{item}", "GET"),
    ("videos", "GET POST"),
    ("videos/edits", "POST"),
    ("videos/extensions", "POST"),
    ("videos/characters", "POST"),
    ("videos/characters/{id}", "GET"),
    ("videos/{id}", "DELETE GET"),
    ("videos/{id}/content", "GET"),
    ("videos/{id}/remix", "POST"),
    ("video/generations/jobs", "GET POST"),
    ("video/generations/jobs/{id}", "DELETE GET"),
    ("video/generations/{id}", "GET"),
    ("video/generations/{id}/content/video", "GET HEAD"),
    ("video/generations/{id}/content/thumbnail", "GET"),
    ("video/generations/{id}/content/gif", "GET"),
    ("realtime", "GET"),
    ("realtime/calls", "POST"),
    ("realtime/calls/{id}/accept", "POST"),
    ("realtime/calls/{id}/hangup", "POST"),
    ("realtime/calls/{id}/refer", "POST"),
    ("realtime/calls/{id}/reject", "POST"),
    ("realtime/client_secrets", "POST"),
    ("realtime/sessions", "POST"),
    ("realtime/transcription_sessions", "POST"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_before_those_that_it_looks_like() {
        for (index, (path, _)) in OPERATIONS.iter().enumerate() {
            let first = OPERATIONS.iter().position(|(pattern, _)| is_like(pattern, path));
            assert_eq!(first, Some(index), "{path}");
        }
    }

    #[test]
    fn a_path_is_known_as_a_whole() {
        for (path, methods) in [
            ("files/file-1", Some("DELETE GET")),
            ("files/", Some("GET POST")),
            ("files//", None),
            ("files/file-1/content/x", None),
            ("filesx", None),
            ("Files", None),
            ("threads/runs", Some("POST")),
            ("threads/thread_1/runs", Some("GET POST")),
            ("", None),
        ] {
            assert_eq!(methods_of(path), methods, "{path}");
        }
    }
}
