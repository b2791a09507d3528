rd_test(core/test_diff.c rd_base)
