rd_test(core/test_kv.c rd_model)
rd_test(core/test_kv_worth.c rd_model)
rd_test(core/test_model.c rd_core rd_cpu)
rd_test(core/test_quant.c rd_core rd_cpu)
