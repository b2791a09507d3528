rd_test(cache/test_cache.c rd_cache)
