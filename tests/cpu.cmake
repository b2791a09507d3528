rd_test(plugins/test_cpu.c rd_core rd_cpu)
rd_test(plugins/test_cpu_packed.c rd_core rd_cpu)
