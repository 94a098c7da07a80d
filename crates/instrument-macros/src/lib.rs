//! The attribute macros of `lacuna-instrument`; use them from there.
//!
//! They wrap an `async fn` in a span for code that talks to Redis or Kafka by hand, where the
//! library's own transaction or consumer cannot be put in place yet.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, ItemFn, ReturnType, Token, parenthesized, parse_macro_input};

/// Wraps an `async fn` that runs a Redis transaction by hand in a span
/// `redis.transaction.<operation>`, and reads its result.
///
/// `operation = "..."` names it (default: the function's name); `fields(a, b = expr)` adds attributes
/// from arguments or expressions.
///
/// It may return anything: `None` reads as a discarded `EXEC`, any other value as applied; an error
/// with a Redis error in its chain of sources keeps that one's reason, and any other is `abandoned`.
#[proc_macro_attribute]
pub fn trace_redis_transaction(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    redis(arguments, function).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Wraps an `async fn` that handles or sends a Kafka message by hand in a span
/// `kafka.<operation>.<event_type>`; an `Err` is an ERROR.
///
/// `operation = "consume"` (the default) or `"produce"`; `event_type = expr` may use the arguments;
/// `fields(a, b = expr)` adds attributes, and a `correlation_id` among them is carried by every span
/// and log line of the body.
///
/// Where the message is at hand, `message = expr, group = expr` makes it the span of
/// `kafka::Consumer::start`: under its producer's span and linked to it, with topic, partition and
/// offset, and counted; the event type may then come from its header. Where only the headers are,
/// `headers = expr` (`&H` or `Option<&H>` of rdkafka's `Headers`) gives the parent and the link.
#[proc_macro_attribute]
pub fn trace_kafka_operation(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    kafka(arguments, function).unwrap_or_else(|e| e.to_compile_error()).into()
}

#[derive(Default)]
struct Arguments {
    operation: Option<Expr>,
    event_type: Option<Expr>,
    message: Option<Expr>,
    group: Option<Expr>,
    headers: Option<Expr>,
    fields: Vec<(Ident, Option<Expr>)>,
}

struct Field(Ident, Option<Expr>);

impl Parse for Field {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.parse()?;
        let value =
            if input.parse::<Option<Token![=]>>()?.is_some() { Some(input.parse()?) } else { None };
        Ok(Self(name, value))
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let known = match name.to_string().as_str() {
                "operation" => Some(&mut arguments.operation),
                "event_type" => Some(&mut arguments.event_type),
                "message" => Some(&mut arguments.message),
                "group" => Some(&mut arguments.group),
                "headers" => Some(&mut arguments.headers),
                _ => None,
            };
            match known {
                Some(argument) => {
                    input.parse::<Token![=]>()?;
                    *argument = Some(input.parse()?);
                }
                None if name == "fields" => {
                    let inner;
                    parenthesized!(inner in input);
                    let fields = Punctuated::<Field, Token![,]>::parse_terminated(&inner)?;
                    arguments.fields.extend(fields.into_iter().map(|f| (f.0, f.1)));
                }
                None => {
                    let message = "expected `operation = \"...\"`, `event_type = ...`, `message = ...`, \
                                   `group = ...`, `headers = ...` or `fields(...)`";
                    return Err(syn::Error::new(name.span(), message));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

/// The fields as attributes, each as the kind of value that it is. Arguments are copied before the
/// body, which may move them.
fn attributes(fields: &[(Ident, Option<Expr>)]) -> Tokens {
    let pairs = fields.iter().map(|(name, value)| {
        let key = name.to_string();
        let value = value.as_ref().map_or_else(|| quote!(#name), |v| quote!(#v));
        quote! {
            ::lacuna_instrument::opentelemetry::KeyValue::new(#key, {
                #[allow(unused_imports)]
                use ::lacuna_instrument::field::{AsText as _, AsValue as _};
                (&::lacuna_instrument::field::Field(&#value)).attribute()
            })
        }
    });
    // With the type: without fields, nothing else says it.
    quote!(<::std::vec::Vec<::lacuna_instrument::opentelemetry::KeyValue>>::from([#(#pairs),*]))
}

fn wrap(mut function: ItemFn, call: impl FnOnce(Tokens, Tokens) -> Tokens) -> syn::Result<Tokens> {
    if function.sig.asyncness.is_none() {
        return Err(syn::Error::new_spanned(&function.sig, "only an `async fn` can be traced"));
    }
    let result = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let body = &function.block;
    let traced = call(result, quote!(async move #body));
    *function.block = syn::parse2(quote!({ #traced }))?;
    Ok(quote!(#function))
}

fn redis(arguments: Arguments, function: ItemFn) -> syn::Result<Tokens> {
    let Arguments { event_type, message, group, headers, .. } = &arguments;
    for (name, unused) in
        [("event_type", event_type), ("message", message), ("group", group), ("headers", headers)]
    {
        if let Some(unused) = unused {
            let text = format!("`{name}` belongs to `trace_kafka_operation`");
            return Err(syn::Error::new_spanned(unused, text));
        }
    }
    let name = function.sig.ident.to_string();
    let operation = arguments.operation.map_or_else(|| quote!(#name), |o| quote!(#o));
    let attributes = attributes(&arguments.fields);
    wrap(function, |result, body| {
        quote! {
            // Made before the body, which may move the arguments, and only with a span to be on.
            let __attributes = if ::lacuna_instrument::switch::spans(::lacuna_instrument::switch::Part::Redis) {
                #attributes
            } else {
                ::std::vec::Vec::new()
            };
            ::lacuna_instrument::redis::trace_by_hand::<#result>(#operation, || __attributes, #body, |__result| {
                #[allow(unused_imports)]
                use ::lacuna_instrument::by_hand::Split as _;
                #[allow(unused_imports)]
                use ::lacuna_instrument::redis::by_hand::{Outcome as _, Reason as _};
                match (&::lacuna_instrument::by_hand::Returned(__result)).split() {
                    ::std::result::Result::Ok(__value) => {
                        (&::lacuna_instrument::redis::by_hand::Value(__value)).outcome()
                    }
                    ::std::result::Result::Err(__error) => ::std::result::Result::Err(
                        (&&&&&::lacuna_instrument::by_hand::Failed(__error)).reason(),
                    ),
                }
            }).await
        }
    })
}

fn kafka(arguments: Arguments, function: ItemFn) -> syn::Result<Tokens> {
    let Arguments { operation, event_type, message, group, headers, fields } = arguments;
    let attributes = attributes(&fields);
    // The text of an error, of whatever type; what is no `Result` is none.
    let read = quote! {
        |__result| {
            #[allow(unused_imports)]
            use ::lacuna_instrument::by_hand::{Split as _, Text as _};
            match (&::lacuna_instrument::by_hand::Returned(__result)).split() {
                ::std::result::Result::Ok(_) => ::std::option::Option::None,
                ::std::result::Result::Err(__error) => ::std::option::Option::Some(
                    (&::lacuna_instrument::by_hand::Failed(__error)).text(),
                ),
            }
        }
    };
    // Also for the log lines of a part that is off.
    let correlation_id = fields.iter().find(|(name, _)| name == "correlation_id");
    let correlation_id = correlation_id.map(|(name, value)| {
        let value = value.as_ref().map_or_else(|| quote!(#name), |v| quote!(#v));
        quote!(::std::string::ToString::to_string(&#value))
    });
    if let (Some(incoming), Some(operation)) = (message.as_ref().or(headers.as_ref()), &operation)
        && quote!(#operation).to_string() == "\"produce\""
    {
        let text = "`message` and `headers` are those of a message that is consumed";
        return Err(syn::Error::new_spanned(incoming, text));
    }
    if let Some(message) = message {
        if let Some(unused) = headers.as_ref().or(operation.as_ref()) {
            let text = "`message` has its own headers and is consumed: leave this out";
            return Err(syn::Error::new_spanned(unused, text));
        }
        let Some(group) = group else {
            let text = "`message` needs `group = ...`, the consumer group that takes it";
            return Err(syn::Error::new_spanned(message, text));
        };
        let event_type = event_type.map(
            |e| quote!(let __start = __start.event_type(::std::string::ToString::to_string(&#e));),
        );
        let correlated =
            correlation_id.map(|id| quote!(let __start = __start.correlation_id(#id);));
        return wrap(function, |result, body| {
            quote! {
                // Begun before the body, which may move the arguments.
                let __span = {
                    let __consumer = ::lacuna_instrument::kafka::Consumer::new(#group);
                    let __message = &#message;
                    let __start = __consumer.start(__message);
                    #event_type
                    #correlated
                    let __start = if ::lacuna_instrument::switch::spans(::lacuna_instrument::switch::Part::Kafka) {
                        ::std::iter::Iterator::fold(
                            ::std::iter::IntoIterator::into_iter(#attributes),
                            __start,
                            |start, kv| start.attribute(kv.key, kv.value),
                        )
                    } else {
                        __start
                    };
                    __start.begin()
                };
                ::lacuna_instrument::kafka::trace_message::<#result>(__span, #body, #read).await
            }
        });
    }
    if let Some(unused) = group {
        return Err(syn::Error::new_spanned(unused, "`group` goes with `message = ...`"));
    }
    let Some(event_type) = event_type else {
        let text = "`event_type = ...` or `message = ..., group = ...` is missing";
        return Err(syn::Error::new_spanned(&function.sig.ident, text));
    };
    let operation = operation.map_or_else(|| quote!("consume"), |o| quote!(#o));
    let correlation_id = match correlation_id {
        Some(id) => quote!(::std::option::Option::Some(#id)),
        None => quote!(::std::option::Option::None),
    };
    let event = quote!(|| (::std::string::ToString::to_string(&#event_type), #attributes));
    let begin = match headers {
        Some(headers) => quote!(of_headers(#operation, #headers, #correlation_id, #event)),
        None => quote!(begin(#operation, #correlation_id, #event)),
    };
    wrap(function, |result, body| {
        quote! {
            // Begun before the body, which may move the arguments.
            let __operation = ::lacuna_instrument::kafka::Operation::#begin;
            ::lacuna_instrument::kafka::trace_by_hand::<#result>(__operation, #body, #read).await
        }
    })
}
