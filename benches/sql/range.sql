select count(t.pad) from bench_starts b join :t t on t.k between b.k and b.k + 99
