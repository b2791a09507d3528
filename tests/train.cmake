rd_test(core/test_backward.c rd_train rd_cpu)
rd_test(core/test_objective.c rd_train)
rd_test(core/test_optimizer.c rd_train rd_cpu)
rd_test(core/test_trainer.c rd_train rd_cpu)
