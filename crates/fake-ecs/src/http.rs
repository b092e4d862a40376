//! The same over HTTP: any path, as clients with an endpoint of their own choose it.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::ecs::FakeEcs;
use crate::wire::Outcome;

/// The largest request in bytes: many times what the documented limits come to.
const MOST_BYTES: usize = 2 << 20;

/// Serves ECS and its queue.
pub fn router(ecs: FakeEcs) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .fallback(answer)
        .layer(axum::extract::DefaultBodyLimit::max(MOST_BYTES))
        .with_state(ecs)
}

async fn answer(State(ecs): State<FakeEcs>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    match ecs.call(target, body).await {
        Outcome::Answered(answer) => {
            let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.body).into_response()
        }
        // A body that is shorter than its length makes the server break the connection.
        Outcome::Broken => {
            let nothing = futures_util::stream::once(async {
                Err::<Bytes, std::io::Error>(std::io::ErrorKind::ConnectionReset.into())
            });
            ([(header::CONTENT_LENGTH, "1")], Body::from_stream(nothing)).into_response()
        }
    }
}
