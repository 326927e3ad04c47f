//! What `InspectLayer` makes of answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    InspectLayer, ResponseBody,
    classify::{Hint, Reason, Refusal},
};

use crate::leaf::{Answer, Broken, header};

type Ask = Request<Full<Bytes>>;

async fn inspected<B>(answer: Response<B>) -> Response<ResponseBody<B>>
where
    B: Body<Data = Bytes, Error: Send + Sync + 'static> + Unpin,
{
    let mut answer = Some(answer);
    let client = service_fn(move |_: Ask| {
        let answer = answer.take().expect("one request");
        async { Ok::<_, Broken>(answer) }
    });
    let ask = Request::post("/openai/v1/responses").body(Full::<Bytes>::default()).unwrap();
    InspectLayer::new().layer(client).oneshot(ask).await.unwrap()
}

async fn told(answer: Answer) -> Response<ResponseBody<Full<Bytes>>> {
    inspected(answer.into_response()).await
}

fn refusal<R>(response: &Response<R>) -> Option<(Reason, Hint)> {
    let refusal = response.extensions().get::<Refusal>()?;
    Some((refusal.reason(), refusal.hint()))
}

fn after(seconds: u64) -> Hint {
    Hint::After(Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn words_count_before_the_time_at_which_a_limit_resets() {
    let overdrawn = |answer: Answer| {
        answer.with("x-ratelimit-remaining-tokens", "-27689").with("x-ratelimit-reset-tokens", "64")
    };
    let text =
        r#"{"error":{"code":"rate_limit_exceeded","message":"Please retry after 4 seconds."}}"#;
    let refused = told(overdrawn(Answer::status(429).telling(text))).await;
    assert_eq!(refusal(&refused), Some((Reason::Rate, after(4))));
    assert_eq!(header(&refused, "retry-after-ms"), Some("4000"));

    // A lack of capacity has nothing to do with the limit.
    let event = "event: error\ndata: {\"error\":{\"code\":\"no_capacity\",\"message\":\"Please retry after 8 seconds.\"}}\n\n";
    let refused = told(overdrawn(Answer::ok().telling(event))).await;
    assert_eq!(refusal(&refused), Some((Reason::Capacity, after(8))));

    let asked = overdrawn(Answer::status(429).telling(text)).with("retry-after-ms", "43");
    assert_eq!(refusal(&told(asked).await).unwrap().1, Hint::After(Duration::from_millis(43)));
    let wordless = told(overdrawn(Answer::status(429))).await;
    assert_eq!(refusal(&wordless).unwrap().1, after(64), "the head alone tells");
}

#[tokio::test(start_paused = true)]
async fn words_leave_a_pushback_of_grpc_as_it_is() {
    let answer = Answer::status(429)
        .telling("Please retry after 4 seconds.")
        .with("content-type", "application/grpc")
        .with("grpc-retry-pushback-ms", "250");
    let refused = told(answer).await;
    assert_eq!(refusal(&refused).unwrap().1, Hint::After(Duration::from_millis(250)));
    assert_eq!(header(&refused, "retry-after-ms"), None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_used_tokens_is_not_sent_again() {
    let usage = |tokens: u32| format!(r#""usage":{{"input_tokens":0,"total_tokens":{tokens}}}"#);
    for (tokens, status) in [(0, 429), (1_600, 200)] {
        let error = r#""error":{"code":"rate_limit_exceeded","message":"x"},"output":[]"#;
        let response = format!(r#"{{"status":"failed",{error},{}}}"#, usage(tokens));
        let event = format!("event: response.failed\ndata: {{\"response\":{response}}}\n\n");
        assert_eq!(told(Answer::ok().telling(response)).await.status(), status);
        assert_eq!(told(Answer::ok().telling(event)).await.status(), status);
    }
}
