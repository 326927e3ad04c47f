//! Names a backend's deployment in a request's body if the path does not.

use http::{Request, Uri, header};

use super::{Deployment, model::ModelRanges, multipart::rename_field, splice::Edited};
use crate::{
    TryCloneBody,
    azure::{ApiPath, ContentKind, ModelRename, Operation, ScannedBody},
};

/// What was read of a request to address it. Valid for every attempt of the request, so that only the
/// first one reads it.
#[derive(Debug, Default)]
pub(crate) struct RequestReading {
    path: Option<ApiPath>,
    models: Option<ModelRanges>,
}

/// The body may name a model, which cannot be replaced by the name of the deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unnameable;

/// Replaces the body's `model` if that names the deployment. A form is read for every attempt,
/// because storing the result would allocate.
pub(crate) fn rewrite_model<B: TryCloneBody>(
    request: &mut Request<B>,
    reading: &mut RequestReading,
    deployment: &Deployment,
) -> Result<(), Unnameable> {
    if !reading.path(request.uri()).names_model_in_body() {
        return Ok(());
    }
    rename_model(request, reading, deployment)
}

/// Replaces the body's `model`, if it has one.
pub(super) fn rename_model<B: TryCloneBody>(
    request: &mut Request<B>,
    reading: &mut RequestReading,
    deployment: &Deployment,
) -> Result<(), Unnameable> {
    let Some(content) = request.body().content() else {
        return rename_arriving(request, deployment, false);
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let edited = match (ContentKind::named(content_type), content_type) {
        (ContentKind::Multipart, Some(form)) => {
            rename_field(&content, form.as_bytes(), deployment)?
        }
        _ => {
            let known = || ScannedBody::fields(request.extensions(), &content);
            let models = &mut reading.models;
            models
                .get_or_insert_with(|| ModelRanges::find(&content, known()))
                .replace(&content, deployment)
        }
    };
    if let Some(edited) = edited {
        replace_content(request, edited);
    }
    Ok(())
}

/// Replaces the content of the request.
pub(super) fn replace_content<B: TryCloneBody>(request: &mut Request<B>, edited: Edited) {
    if let Some(length) = request.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *length = edited.len().into();
    }
    match edited {
        Edited::Whole(content) => request.body_mut().replace_content(content),
        Edited::Pieces(pieces) => request.body_mut().replace_with_pieces(pieces),
    }
}

/// Has the body rename its model while it arrives, or add one at its end if it `is_missing`.
#[cold]
pub(super) fn rename_arriving<B: TryCloneBody>(
    request: &mut Request<B>,
    deployment: &Deployment,
    is_missing: bool,
) -> Result<(), Unnameable> {
    let operation = Operation::of(request.uri().path());
    if !operation.may_name_model() || request.body().is_end_stream() {
        return Ok(());
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut rename = ModelRename::new(content_type.as_ref(), deployment.json(), deployment.name());
    if is_missing {
        rename = rename.adding(content_type.as_ref());
    }
    if !request.body_mut().rename_model(rename) {
        let kind = ContentKind::named(content_type.as_ref());
        let is_readable = matches!(kind, ContentKind::Json | ContentKind::Multipart);
        return if is_readable || content_type.is_none() { Err(Unnameable) } else { Ok(()) };
    }
    // Without a header, the client frames the body by its own size hint.
    let exact = request.body().size_hint().exact();
    let headers = request.headers_mut();
    match (headers.get_mut(header::CONTENT_LENGTH), exact) {
        (Some(length), Some(exact)) => *length = exact.into(),
        (Some(_), None) => drop(headers.remove(header::CONTENT_LENGTH)),
        (None, _) => {}
    }
    Ok(())
}

impl RequestReading {
    /// The path of `uri`, which is the request's original one.
    pub(crate) fn path(&mut self, uri: &Uri) -> &ApiPath {
        self.path.get_or_insert_with(|| ApiPath::of(uri.path()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    fn rewritten(path: &str, content_type: &str, body: &'static str) -> Request<Full<Bytes>> {
        let mut request = Request::post(path)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, body.len())
            .body(Full::from(body))
            .expect("a valid request");
        let (mut reading, name) = (RequestReading::default(), Deployment::new("gpt-4o-sweden"));
        rewrite_model(&mut request, &mut reading, &name.expect("a name")).expect("in memory");
        request
    }

    fn text(request: Request<Full<Bytes>>) -> Bytes {
        request.into_body().into_inner().unwrap_or_default()
    }

    #[test]
    fn a_v1_body_and_its_length_name_the_deployment_of_the_backend() {
        let request = rewritten(
            "/openai/v1/responses",
            "application/json; charset=utf-8",
            r#"{"model":"gpt","input":"hi"}"#,
        );
        assert_eq!(request.headers()[header::CONTENT_LENGTH], "38");
        assert_eq!(text(request), r#"{"model":"gpt-4o-sweden","input":"hi"}"#);
    }

    #[test]
    fn a_classic_path_names_the_deployment_so_its_body_is_left_alone() {
        let body = r#"{"model":"gpt"}"#;
        let path = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(text(rewritten(path, "application/json", body)), body);
    }

    #[test]
    fn an_upload_names_the_deployment_in_a_form_field() {
        let body =
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n";
        let path = "/openai/v1/audio/transcriptions";
        let request = rewritten(path, "Multipart/Form-Data; boundary=b", body);
        assert_eq!(text(request), body.replace("whisper", "gpt-4o-sweden"));
    }

    #[test]
    fn a_request_without_a_body_is_left_alone() {
        let mut request = Request::get("/openai/v1/models").body(Empty::<Bytes>::new()).unwrap();
        let (mut reading, name) = (RequestReading::default(), Deployment::new("gpt-4o-sweden"));
        rewrite_model(&mut request, &mut reading, &name.expect("a name")).expect("in memory");
        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_later_attempt_goes_by_what_the_first_one_read() {
        let body = r#"{"model":"gpt","model":"west","input":"hi"}"#;
        let given = Request::post("/openai/v1/responses").body(Full::<Bytes>::from(body)).unwrap();
        let mut reading = RequestReading::default();
        for name in ["west", "gpt", "gpt-4o-sweden", "west"] {
            let mut request = given.clone();
            rewrite_model(&mut request, &mut reading, &Deployment::new(name).unwrap()).unwrap();
            let expected = body.replace("gpt", "west").replace("west", name);
            assert_eq!(text(request), expected);
            assert!(reading.path.is_some());
            assert_eq!(reading.models, Some(ModelRanges::Often(vec![9..14, 23..29])));
        }
    }
}
