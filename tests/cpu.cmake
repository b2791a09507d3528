rd_test(plugins/test_cpu.c rd_core rd_cpu)
