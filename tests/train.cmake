rd_test(core/test_backward.c rd_train rd_cpu)
rd_test(core/test_objective.c rd_train)
