select (count(t.pad) + 0 * sum(t.n))::bigint from :t t
