//! The reference script's job on a real endpoint: sends prompts, prints answers and reasons.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_spillover::{RetryAfterPolicy, SmartFallbackLayer, backend::DeploymentLayer};

use crate::{
    Failure,
    account::{Account, Run},
    job::Live,
    loopback::chain,
    report::{Out, ms},
};

type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends the prompts one after the other through one stack, which keeps its state.
pub(crate) async fn run(live: &Live, out: &mut Out) -> Result<(), Failure> {
    let (ptu, standard) = (live.ptu.as_str(), live.standard.as_str());
    if live.max_retries == 0 {
        let layer = SmartFallbackLayer::deployments(ptu, standard)?.max_wait(live.max_wait);
        return converse(layer.layer(client()), live, out).await;
    }
    // The SDK's own retries, limited so that they cannot use up the time for the PTU.
    let retries = RetryAfterPolicy::new().max_retries(live.max_retries);
    let layer = SmartFallbackLayer::new(
        DeploymentLayer::new(ptu)?,
        ServiceBuilder::new()
            .layer(RetryLayer::new(retries))
            .layer(DeploymentLayer::new(standard)?)
            .into_inner(),
    )
    .names(ptu, standard)
    .max_wait(live.max_wait);
    converse(layer.layer(client()), live, out).await
}

async fn converse<S>(stack: S, live: &Live, out: &mut Out) -> Result<(), Failure>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = legacy::Error> + Clone,
{
    let standing = [DEFAULT_PROMPT.to_owned()];
    let prompts = if live.prompts.is_empty() { &standing } else { live.prompts.as_slice() };
    let mut run = Run::new("spillover", [live.ptu.as_str(), live.standard.as_str()]);
    for (index, prompt) in prompts.iter().enumerate() {
        if prompts.len() > 1 {
            let blank = if index > 0 { "\n" } else { "" };
            out.say(&format!("{blank}> {}", printable(prompt)))?;
        }
        run.requests += 1;
        let (account, answer) = ask(stack.clone(), live, prompt).await?;
        for reason in reasons(&account, live) {
            out.say(&reason)?;
        }
        out.say(&format!("Total latency was {:.3} seconds.", account.took.as_secs_f64()))?;
        out.say(account.problem.as_deref().unwrap_or(&answer))?;
        run.add(account);
    }
    let run = run.finish();
    if out.is_json() {
        out.result(std::slice::from_ref(&run))?;
    }
    if run.ok < run.requests {
        return Err(format!(
            "{} of {} prompts were not answered",
            run.requests - run.ok,
            run.requests
        )
        .into());
    }
    Ok(())
}

/// Sends one prompt; returns the result, and the answer's text if there is one.
async fn ask<S>(stack: S, live: &Live, prompt: &str) -> Result<(Account, String), Failure>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = legacy::Error>,
{
    let request = request(live, prompt)?;
    let begun = Instant::now();
    let mut account = Account::default();
    let mut answer = String::new();
    match timeout(LONGEST, exchange(stack, request)).await {
        Err(_) => {
            let seconds = LONGEST.as_secs();
            account.problem = Some(format!("{} did not answer in {seconds} s", live.endpoint));
        }
        Ok(Err(error)) => {
            let cause = printable(&chain(&*error));
            account.problem = Some(format!(
                "no answer from {}: {cause}: check OPENAI_API_BASE and the network",
                live.endpoint
            ));
        }
        Ok(Ok((head, body))) => {
            account.note(&head);
            match content(&body).filter(|_| head.status.is_success()) {
                Some(content) => answer = without_key(&printable(&content), live),
                None => {
                    let problem = complaint(head.status, &account, &body);
                    account.problem = Some(without_key(&problem, live));
                }
            }
        }
    }
    account.took = begun.elapsed();
    Ok((account, answer))
}

async fn exchange<S>(
    stack: S,
    request: Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), Box<dyn Error + Send + Sync>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = legacy::Error>,
{
    let (head, body) = stack.oneshot(request).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
    Ok((head, body))
}

fn request(live: &Live, prompt: &str) -> Result<Request<Full<Bytes>>, Failure> {
    let body = json!({ "messages": [
        { "role": "system", "content": "You are a helpful assistant." },
        { "role": "user", "content": prompt },
    ] });
    // The layer inserts the deployment's name, percent-encoded if necessary.
    let uri = format!(
        "{}/openai/deployments/-/chat/completions?api-version={}",
        live.endpoint, live.api_version
    );
    let request = Request::post(uri)
        .header("content-type", "application/json")
        .header("api-key", live.key.clone())
        .body(Full::from(body.to_string()));
    request.map_err(|error| format!("OPENAI_API_BASE makes no address: {error}").into())
}

/// What happened before the answer, in the words of the reference script.
fn reasons(account: &Account, live: &Live) -> Vec<String> {
    let Some(served) = &account.served else { return Vec::new() };
    let mut reasons = Vec::new();
    let mut attempts = served.attempts().peekable();
    while let Some(attempt) = attempts.next() {
        let Some(next) = attempts.peek() else { break };
        let wait = attempt.hint().duration().unwrap_or_default();
        reasons.push(if next.backend() == live.ptu {
            // After a refusal without a hint the time that passed is all there is.
            let gap = next.at().saturating_sub(attempt.at());
            let waited = if wait.is_zero() { gap } else { wait };
            format!("retrying PTU after {} ms", waited.as_millis())
        } else {
            let total = next.at().saturating_add(wait).as_millis();
            format!("Latency {total} ms exceeds threshold. Switching to paygo.")
        });
    }
    let asked_ptu = served.attempts().any(|attempt| attempt.backend() == live.ptu);
    if served.spilled() && !asked_ptu {
        reasons.push("The PTU is known to refuse for too long. Switching to paygo.".to_owned());
    }
    if account.is_ok() {
        let tier = if served.spilled() { "Standard" } else { "PTU" };
        reasons.push(format!("responded through {tier}"));
    }
    reasons
}

/// The text of a chat completion; a message may have none, for example when a filter cut it.
fn content(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let message = body.get("choices")?.get(0)?.get("message")?;
    let text = |field| message.get(field).and_then(Value::as_str).map(str::to_owned);
    text("content").or_else(|| text("refusal")).or_else(|| Some("(no text)".to_owned()))
}

/// The endpoint's error message, and what to check.
fn complaint(status: StatusCode, account: &Account, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| body.get("error")?.get("message")?.as_str().map(printable))
        .unwrap_or_else(|| printable(&String::from_utf8_lossy(&body[..body.len().min(500)])));
    let remedy = match status.as_u16() {
        200..=299 => "it is no chat completion: check OPENAI_API_BASE".to_owned(),
        401 | 403 => "check OPENAI_API_KEY, and that it is a key of this resource".to_owned(),
        404 => "check OPENAI_API_BASE, the deployments' names and the api-version".to_owned(),
        429 => match account.retry_after {
            Some(wait) => format!("both deployments refuse: come back in {}", ms(wait)),
            None => "both deployments refuse".to_owned(),
        },
        _ => "it is the service's own trouble, or about the request itself".to_owned(),
    };
    format!("the endpoint answered {}: {said} ({remedy})", status.as_u16())
}

/// This program never prints the key, but a server may echo it. Anything shorter than a key would
/// only be a word.
/// key would only be a word.
fn without_key(text: &str, live: &Live) -> String {
    match live.key.to_str() {
        Ok(key) if key.len() >= 8 => text.replace(key, "***"),
        _ => text.to_owned(),
    }
}

/// Text from elsewhere, without what would steer a terminal.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

fn client() -> HttpsClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(Duration::from_secs(10)));
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new()).build(connector)
}

const DEFAULT_PROMPT: &str = "In one sentence: what is a provisioned throughput unit?";
/// The timeout of the SDK that the reference script uses.
const LONGEST: Duration = Duration::from_secs(600);
/// No completion is longer.
const LARGEST: usize = 16 << 20;
