//! A router with whatever a handler may do, for tests.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, put};
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use crate::problem::{Json, Query};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: u32,
}

pub(super) fn router() -> Router {
    Router::new()
        .route("/quick", get(async || "quick"))
        .route("/slow", get(async || sleep(Duration::from_hours(1)).await))
        .route(
            "/endless",
            get(async || {
                Body::from_stream(stream::iter([Ok::<_, Infallible>("begun")]).chain(stream::pending()))
            }),
        )
        .route(
            "/flood",
            get(async || Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 65_536])))),
        )
        .route("/panic", get(async || -> () { panic!("secret cause") }))
        .route("/count", put(async |Json(body): Json<Count>| body.count.to_string()))
        .route("/query", get(async |Query(query): Query<Count>| query.count.to_string()))
}
