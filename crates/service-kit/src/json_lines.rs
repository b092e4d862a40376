//! Logs as JSON lines: those of the library, with the trace that a line belongs to.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, FormatFields, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

/// How each object ends, and its line.
const END: &str = "}\n";

/// One JSON object a line. `trace_id` and `span_id` are those of the span in which it was logged, while traces are
/// exported.
pub(crate) struct JsonLines(pub(crate) Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let current = Context::current();
        let span = current.span();
        let ids = span.span_context();
        if !ids.is_valid() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let fields = line.strip_suffix(END).ok_or(fmt::Error)?;
        write!(writer, "{fields},\"trace_id\":\"{}\",\"span_id\":\"{}\"{END}", ids.trace_id(), ids.span_id())
    }
}
