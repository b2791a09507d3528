rd_test(core/test_diff.c rd_base)
rd_test(core/test_key.c rd_base)
rd_test(core/test_memory.c rd_base)
rd_test(core/test_status.c rd_base)
