rd_test(core/test_status.c rd_base)
