rd_test(core/test_policy.c rd_decode)
rd_test(core/test_decoder.c rd_core rd_cpu)
rd_test(core/test_prompt.c rd_decode)
rd_test(core/test_hole.c rd_core rd_cpu)
