rd_test(core/test_memory.c rd_base)
