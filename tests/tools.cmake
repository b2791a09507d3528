rd_test(core/test_shape.c rd_tools rd_core rd_cpu)
