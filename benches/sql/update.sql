update :t t set n = t.n + 1 from bench_updates b where t.k = b.k
