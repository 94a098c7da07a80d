use super::*;
use proptest::prelude::*;

#[test]
fn summaries_name_operations_and_targets_in_order() {
    for (sql, expected) in [
        ("INSERT INTO essays (id) SELECT id FROM drafts", "INSERT essays SELECT drafts"),
        ("update only public.essays set state = 'x' where id = 1", "UPDATE public.essays"),
        ("SELECT * FROM essays WHERE id = $1 FOR UPDATE", "SELECT essays"),
        ("SELECT * FROM essays FOR NO KEY UPDATE OF essays, batches", "SELECT essays"),
        (
            "INSERT INTO essays VALUES ($1) ON CONFLICT (id) DO UPDATE SET state = $2",
            "INSERT essays",
        ),
        ("CREATE TABLE IF NOT EXISTS batches (id text)", "CREATE batches"),
        ("SELECT count(*) FROM (SELECT 1 FROM t) s", "SELECT SELECT t"),
        ("UPDATE a SET x = 1 RETURNING extract(epoch FROM b - c)", "UPDATE a"),
        ("SELECT trim(both ' ' from (SELECT n FROM t)) FROM u", "SELECT SELECT t u"),
        ("SELECT 1 FROM a WHERE b IS DISTINCT FROM c", "SELECT a"),
        ("SELECT release, copy, show FROM a", "SELECT a"),
        ("BEGIN", "BEGIN"),
        ("", ""),
    ] {
        assert_eq!(summarise(sql), expected, "{sql}");
    }
}

#[test]
fn every_table_of_a_list_is_named() {
    for (sql, expected) in [
        ("SELECT * FROM essays, batches", "SELECT essays batches"),
        ("SELECT a, b FROM x AS y (a, b), ONLY z WHERE a IN (1, 2)", "SELECT x z"),
        ("SELECT * FROM a LEFT JOIN b ON a.i = b.i, c ORDER BY i, j", "SELECT a b c"),
        ("SELECT * FROM (SELECT p, q FROM t) s, u", "SELECT SELECT t u"),
        ("UPDATE t SET a = 1, b = 2 FROM u, v WHERE t.i = u.i", "UPDATE t u v"),
        ("INSERT INTO a (x, y) VALUES (1, 2), (3, 4)", "INSERT a"),
        ("DELETE FROM a USING b, c WHERE a.i = b.i", "DELETE a b c"),
        ("MERGE INTO a USING b ON a.i = b.i WHEN MATCHED THEN UPDATE SET x = 1", "MERGE a b"),
        ("DROP TABLE IF EXISTS a, b", "DROP a b"),
        ("CREATE TABLE a AS SELECT x, y FROM b", "CREATE a SELECT b"),
        ("TRUNCATE essays", "TRUNCATE essays"),
        ("truncate table a, b restart identity", "TRUNCATE a b"),
        ("COPY essays FROM STDIN", "COPY essays"),
        ("COPY essays (id, state) FROM '/tmp/x'", "COPY essays"),
        ("COPY (SELECT a FROM t) TO STDOUT", "COPY SELECT t"),
    ] {
        assert_eq!(summarise(sql), expected, "{sql}");
    }
}

#[test]
fn functions_and_what_a_with_defines_are_no_tables() {
    for (sql, expected) in [
        ("SELECT * FROM generate_series(1, 3), a", "SELECT a"),
        ("SELECT * FROM a JOIN LATERAL unnest(a.x) AS u ON true", "SELECT a"),
        ("CALL refresh(1)", "CALL refresh"),
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", "DELETE a SELECT"),
        (
            "WITH before AS (SELECT id FROM batches) UPDATE batches SET n = 1 FROM before",
            "SELECT batches UPDATE batches",
        ),
        (
            "with recursive a (n) as (select 1 union select n from a), \"B\" as not materialized (select 2) select * from A, \"B\", public.a",
            "SELECT SELECT SELECT SELECT public.a",
        ),
        ("SELECT * FROM a WITH ORDINALITY, b", "SELECT a b"),
    ] {
        assert_eq!(summarise(sql), expected, "{sql}");
    }
}

#[test]
fn a_collection_is_told_where_there_is_one_and_the_operation_is_the_statements_own() {
    for (sql, operation, collection) in [
        ("SELECT * FROM essays", "SELECT", Some("essays")),
        ("SELECT * FROM essays a JOIN essays b ON a.i = b.j", "SELECT", Some("essays")),
        ("SELECT * FROM \"my essays\"", "SELECT", Some("\"my essays\"")),
        ("SELECT * FROM essays, batches", "SELECT", None),
        ("SELECT * FROM now()", "SELECT", None),
        ("CALL refresh(1)", "CALL", None),
        (
            "WITH b AS (SELECT id FROM batches) UPDATE batches SET n = 1 FROM b",
            "UPDATE",
            Some("batches"),
        ),
        ("COPY essays FROM STDIN", "COPY", Some("essays")),
    ] {
        let summary = Summary::of(sql);
        assert_eq!(summary.operation.as_deref(), Some(operation), "{sql}");
        assert_eq!(summary.collection.as_deref(), collection, "{sql}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(sql in "\\PC{0,80}") {
        prop_assert!(summarise(&sql).len() <= 255);
    }

    #[test]
    fn words_in_any_order_do_not_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "SELECT", "FROM", "WITH", "RECURSIVE", "AS", "NOT", "(", ")", ",", ".", ";", "a", "\"b\"",
            "UPDATE", "USING", "DELETE", "COPY", "TRUNCATE", "TABLE", "JOIN", "INTO", "CALL", "trim"
        ]), 0..40)
    ) {
        prop_assert!(summarise(&words.join(" ")).len() <= 255);
    }
}
