//! Traces across the queue: what a request's span is called goes into its job's payload, and from
//! there into the call of zooid, as W3C's `traceparent`. Without the feature `otel`, nothing.

/// The `traceparent` of the current span; `None` when nothing is traced.
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

/// Makes `span` a part of the trace that `traceparent` names; anything else is left alone.
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
        // Refused only where no layer traces; then there is nothing to follow.
        let _not_traced = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The `traceparent` of the current span; `None` when nothing is traced.
#[cfg(not(feature = "otel"))]
pub fn current() -> Option<String> {
    None
}

/// Makes `span` a part of the trace that `traceparent` names.
#[cfg(not(feature = "otel"))]
pub fn follow(_span: &tracing::Span, _traceparent: Option<&str>) {}
