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
#[proc_macro_attribute]
pub fn trace_redis_transaction(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    redis(arguments, function).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Wraps an `async fn` that handles or sends a Kafka message by hand in a span
/// `kafka.<operation>.<event_type>`; an `Err` is an ERROR.
///
/// `operation = "consume"` (the default) or `"produce"`; `event_type = expr` (required) may use the
/// arguments; `fields(a, b = expr)` adds attributes.
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
            match name.to_string().as_str() {
                "operation" => {
                    input.parse::<Token![=]>()?;
                    arguments.operation = Some(input.parse()?);
                }
                "event_type" => {
                    input.parse::<Token![=]>()?;
                    arguments.event_type = Some(input.parse()?);
                }
                "fields" => {
                    let inner;
                    parenthesized!(inner in input);
                    let fields = Punctuated::<Field, Token![,]>::parse_terminated(&inner)?;
                    arguments.fields.extend(fields.into_iter().map(|f| (f.0, f.1)));
                }
                _ => {
                    let message =
                        "expected `operation = \"...\"`, `event_type = ...` or `fields(...)`";
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
    quote!(::std::vec![#(#pairs),*])
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
    if let Some(unused) = arguments.event_type {
        return Err(syn::Error::new_spanned(
            unused,
            "`event_type` belongs to `trace_kafka_operation`",
        ));
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
            ::lacuna_instrument::redis::trace_by_hand::<#result>(#operation, || __attributes, #body).await
        }
    })
}

fn kafka(arguments: Arguments, function: ItemFn) -> syn::Result<Tokens> {
    let Some(event_type) = arguments.event_type else {
        return Err(syn::Error::new_spanned(&function.sig.ident, "`event_type = ...` is missing"));
    };
    let operation = arguments.operation.map_or_else(|| quote!("consume"), |o| quote!(#o));
    let attributes = attributes(&arguments.fields);
    wrap(function, |result, body| {
        quote! {
            // Made before the body, which may move the arguments, and only with a span to be on.
            let __event = if ::lacuna_instrument::switch::spans(::lacuna_instrument::switch::Part::Kafka) {
                (::std::string::ToString::to_string(&#event_type), #attributes)
            } else {
                (::std::string::String::new(), ::std::vec::Vec::new())
            };
            ::lacuna_instrument::kafka::trace_by_hand::<#result>(#operation, || __event, #body).await
        }
    })
}
