rd_test(core/test_engine.c rd_tools rd_core rd_cpu)
rd_test(core/test_local.c rd_core rd_cpu)
rd_test(core/test_store.c rd_tools rd_core rd_cpu)
