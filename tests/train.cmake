rd_test(core/test_backward.c rd_train rd_cpu)
