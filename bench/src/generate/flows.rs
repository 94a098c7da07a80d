//! What users of the modelled shop do: each a flow of one or several traces.

use super::model::At::*;
use super::model::Root;
use super::scribe::Scribe;

/// A flow, chosen by the scribe.
pub fn any(s: &mut Scribe) -> Vec<Root> {
    match s.rng.below(16) {
        0..=3 => browse(s),
        4 | 5 => search(s),
        6..=8 => cart(s),
        9 | 10 => sign_in(s),
        11..=13 => order(s),
        14 => review(s),
        _ => report(s),
    }
}

fn browse(s: &mut Scribe) -> Vec<Root> {
    let read = vec![
        s.redis(Catalog, "GET", "catalog:product:"),
        s.pg(Catalog, "SELECT", "products", "SELECT p.id, p.sku, p.title, p.description, p.price_minor, p.currency, p.updated_at FROM products p JOIN product_locale l ON l.product_id = p.id WHERE p.id = $1 AND l.locale = $2"),
        s.redis(Catalog, "SETEX", "catalog:product:"),
    ];
    let catalog = s.call(Gateway, Catalog, "GET", "/internal/products/{id}", read);
    let scores = vec![
        s.redis(Recommend, "ZREVRANGE", "recommend:user:"),
        s.step(Recommend, "rank_candidates", Vec::new()),
        s.redis(Recommend, "MGET", "recommend:features:"),
    ];
    let recommend = s.call(Gateway, Recommend, "POST", "/internal/recommendations", scores);
    let image = vec![s.redis(Media, "GET", "media:variant:")];
    let media = s.call(Gateway, Media, "GET", "/internal/media/{id}/variants", image);
    let root =
        s.http_server(Gateway, "GET", "/api/v1/products/{id}", vec![catalog, recommend, media]);
    vec![(0, root)]
}

fn search(s: &mut Scribe) -> Vec<Root> {
    let index = vec![
        s.step(Search, "parse_query", Vec::new()),
        s.redis(Search, "GET", "search:result:"),
        s.pg(Search, "SELECT", "product_index", "SELECT product_id, ts_rank_cd(document, query) AS rank FROM product_index, plainto_tsquery($1) AS query WHERE document @@ query AND region = $2 ORDER BY rank DESC LIMIT 48 OFFSET $3"),
    ];
    let found = s.call(Gateway, Search, "GET", "/internal/search", index);
    let quote = vec![s.redis(Price, "MGET", "price:sku:"), s.step(Price, "apply_tax", Vec::new())];
    let prices = s.call(Gateway, Price, "POST", "/internal/quotes", quote);
    vec![(0, s.http_server(Gateway, "GET", "/api/v1/search", vec![found, prices]))]
}

fn cart(s: &mut Scribe) -> Vec<Root> {
    let quote = vec![
        s.redis(Price, "HGET", "price:sku:"),
        s.pg(Price, "SELECT", "price_rules", "SELECT rule_id, kind, amount_minor, starts_at, ends_at FROM price_rules WHERE sku = ANY($1) AND tenant = $2 AND now() BETWEEN starts_at AND ends_at ORDER BY priority"),
    ];
    let price = s.call(Cart, Price, "POST", "/internal/quotes", quote);
    let stock = vec![s.redis(Stock, "HGET", "stock:sku:")];
    let stock = s.call(Cart, Stock, "GET", "/internal/stock/{id}", stock);
    let steps = vec![
        s.redis(Cart, "HGETALL", "cart:items:"),
        price,
        stock,
        s.redis(Cart, "HSET", "cart:items:"),
        s.redis(Cart, "EXPIRE", "cart:items:"),
    ];
    let put = s.call(Gateway, Cart, "PUT", "/internal/carts/{id}/items", steps);
    vec![(0, s.http_server(Gateway, "PUT", "/api/v1/carts/{id}/items", vec![put]))]
}

fn sign_in(s: &mut Scribe) -> Vec<Root> {
    let (message, event) = (s.fresh_message(), s.fresh_uuid());
    let steps = vec![
        s.redis(Auth, "INCR", "auth:attempts:"),
        s.pg(Auth, "SELECT", "credentials", "SELECT user_id, password_hash, mfa_required, locked_until FROM credentials WHERE lower(email) = lower($1) AND tenant = $2"),
        s.step(Auth, "verify_password", Vec::new()),
        s.redis(Auth, "SETEX", "auth:session:"),
        s.produce(Auth, "session.started", message, event),
    ];
    let auth = s.call(Gateway, Auth, "POST", "/internal/sessions", steps);
    let root = s.http_server(Gateway, "POST", "/api/v1/sessions", vec![auth]);
    let seen = vec![s.pg(Users, "UPDATE", "profiles", "UPDATE profiles SET last_seen_at = now(), last_device = $2 WHERE user_id = $1 RETURNING user_id, last_seen_at")];
    let users = s.consume(Users, "session.started", message, event, seen);
    let kept = vec![s.pg(Audit, "INSERT", "audit_events", "INSERT INTO audit_events (id, kind, actor, subject, detail, recorded_at) VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT (id) DO NOTHING")];
    let audit = s.consume(Audit, "session.started", message, event, kept);
    vec![(0, root), (60_000, users), (90_000, audit)]
}

fn order(s: &mut Scribe) -> Vec<Root> {
    let (placed, placed_id) = (s.fresh_message(), s.fresh_uuid());
    let (paid, paid_id) = (s.fresh_message(), s.fresh_uuid());
    let (held, held_id) = (s.fresh_message(), s.fresh_uuid());
    let check = vec![
        s.redis(Stock, "WATCH", "stock:hold:"),
        s.redis(Stock, "EXEC", "stock:hold:"),
        s.pg(Stock, "UPDATE", "stock_levels", "UPDATE stock_levels SET held = held + $2, version = version + 1 WHERE sku = $1 AND available - held >= $2 AND version = $3 RETURNING available, held"),
    ];
    let stock = s.call(Orders, Stock, "POST", "/internal/holds", check);
    let steps = vec![
        s.redis(Orders, "HGETALL", "cart:items:"),
        s.step(Orders, "validate_order", Vec::new()),
        stock,
        s.pg(Orders, "INSERT", "orders", "INSERT INTO orders (id, number, user_id, total_minor, currency, state, placed_at) VALUES ($1, $2, $3, $4, $5, 'placed', now()) RETURNING id"),
        s.pg(Orders, "INSERT", "order_lines", "INSERT INTO order_lines (order_id, line, sku, quantity, price_minor) SELECT $1, * FROM unnest($2::int[], $3::text[], $4::int[], $5::bigint[])"),
        s.produce(Orders, "order.placed", placed, placed_id),
    ];
    let orders = s.call(Gateway, Orders, "POST", "/internal/orders", steps);
    let root = s.http_server(Gateway, "POST", "/api/v1/orders", vec![orders]);

    let score = vec![
        s.redis(Fraud, "HGETALL", "fraud:features:"),
        s.step(Fraud, "score_order", Vec::new()),
    ];
    let fraud = s.call(Payments, Fraud, "POST", "/internal/scores", score);
    let pay = vec![
        fraud,
        s.http_client(Payments, "api.cards.example.com", "POST", "/v3/charges/{id}/capture"),
        s.pg(Payments, "INSERT", "payments", "INSERT INTO payments (id, order_id, provider, provider_ref, amount_minor, currency, state) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (order_id) DO UPDATE SET state = excluded.state"),
        s.produce(Payments, "payment.captured", paid, paid_id),
    ];
    let payments = s.consume(Payments, "order.placed", placed, placed_id, pay);
    let hold = vec![
        s.redis(Stock, "DECRBY", "stock:sku:"),
        s.produce(Stock, "stock.reserved", held, held_id),
    ];
    let reserve = s.consume(Stock, "order.placed", placed, placed_id, hold);
    let ship = vec![
        s.pg(Shipping, "INSERT", "shipments", "INSERT INTO shipments (id, order_id, carrier, service_level, address_id, state, created_at) VALUES ($1, $2, $3, $4, $5, 'planned', now())"),
        s.step(Shipping, "choose_carrier", Vec::new()),
    ];
    let shipping = s.consume(Shipping, "payment.captured", paid, paid_id, ship);
    let mail = vec![
        s.redis(Notify, "SETNX", "notify:once:"),
        s.http_client(Notify, "smtp-relay.shop.internal", "POST", "/v1/messages/{id}"),
    ];
    let notify = s.consume(Notify, "payment.captured", paid, paid_id, mail);
    let bill = vec![s.pg(Invoices, "INSERT", "invoices", "INSERT INTO invoices (id, order_id, number, total_minor, tax_minor, currency, issued_at) VALUES ($1, $2, nextval('invoice_number'), $3, $4, $5, now())")];
    let invoice = s.consume(Invoices, "payment.captured", paid, paid_id, bill);
    let points = vec![s.redis(Loyalty, "INCRBY", "loyalty:points:")];
    let loyalty = s.consume(Loyalty, "stock.reserved", held, held_id, points);
    vec![
        (0, root),
        (80_000, payments),
        (70_000, reserve),
        (400_000, shipping),
        (390_000, notify),
        (410_000, invoice),
        (260_000, loyalty),
    ]
}

fn review(s: &mut Scribe) -> Vec<Root> {
    let (message, event) = (s.fresh_message(), s.fresh_uuid());
    let steps = vec![
        s.step(Reviews, "screen_text", Vec::new()),
        s.pg(Reviews, "INSERT", "reviews", "INSERT INTO reviews (id, product_id, user_id, stars, title, body, state, written_at) VALUES ($1, $2, $3, $4, $5, $6, 'pending', now())"),
        s.produce(Reviews, "review.written", message, event),
    ];
    let reviews = s.call(Gateway, Reviews, "POST", "/internal/reviews", steps);
    let root = s.http_server(Gateway, "POST", "/api/v1/products/{id}/reviews", vec![reviews]);
    let update = vec![s.pg(Catalog, "UPDATE", "product_rating", "UPDATE product_rating SET stars_sum = stars_sum + $2, stars_count = stars_count + 1 WHERE product_id = $1"), s.redis(Catalog, "DEL", "catalog:product:")];
    let catalog = s.consume(Catalog, "review.written", message, event, update);
    vec![(0, root), (120_000, catalog)]
}

fn report(s: &mut Scribe) -> Vec<Root> {
    let parts = 3 + s.rng.below(4);
    let mut sends = Vec::new();
    let mut takes = Vec::new();
    for part in 0..parts {
        let (message, event) = (s.fresh_message(), s.fresh_uuid());
        sends.push(s.produce(Reports, "report.part.requested", message, event));
        let work = vec![
            s.pg(Reports, "SELECT", "order_facts", "SELECT day, region, channel, sum(total_minor) AS total, count(*) AS orders FROM order_facts WHERE day BETWEEN $1 AND $2 AND region = $3 GROUP BY day, region, channel"),
            s.step(Reports, "render_part", Vec::new()),
            s.pg(Reports, "INSERT", "report_parts", "INSERT INTO report_parts (report_id, part, body, rows, finished_at) VALUES ($1, $2, $3, $4, now()) ON CONFLICT (report_id, part) DO NOTHING"),
        ];
        let take = s.consume(Reports, "report.part.requested", message, event, work);
        takes.push((50_000 + 30_000 * part as u32, take));
    }
    let plan = s.step(Reports, "plan_report", sends);
    let mut roots = vec![(0, s.http_server(Reports, "POST", "/internal/reports", vec![plan]))];
    roots.append(&mut takes);
    roots
}
