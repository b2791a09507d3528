rd_test(cache/test_cache.c rd_cache)
rd_test(cache/test_cache_purge.c rd_cache)
