//! Traces across the queue: the span of a request is stored in the payload of its job and sent to
//! zooid with the call, as a `traceparent` (W3C Trace Context). Without the feature `otel` the
//! functions do nothing.

/// Returns the `traceparent` of the current span; `None` if the span is not recorded.
#[cfg(feature = "otel")]
pub fn current() -> Option<String> {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = tracing::Span::current().context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        let flags = context.trace_flags().to_u8();
        format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
    })
}

/// Makes `span` a child of the span that `traceparent` names. Does nothing if `traceparent` is
/// malformed.
#[cfg(feature = "otel")]
pub fn follow(span: &tracing::Span, traceparent: Option<&str>) {
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let parse = |text: &str| {
        let mut parts = text.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let span = SpanId::from_hex(parts.next()?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
        Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
    };
    if let Some(parent) = traceparent.and_then(parse) {
        // Fails only if no layer records traces.
        let _not_traced = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Returns `None` without the feature `otel`.
#[cfg(not(feature = "otel"))]
pub fn current() -> Option<String> {
    None
}

/// Does nothing without the feature `otel`.
#[cfg(not(feature = "otel"))]
pub fn follow(_span: &tracing::Span, _traceparent: Option<&str>) {}
