select count(t.pad) from bench_keys b join :t t on t.k = b.k
