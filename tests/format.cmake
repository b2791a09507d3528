rd_test(core/test_safetensors.c rd_format)
rd_test(core/test_config.c rd_format)
rd_test(core/test_tokenizer.c rd_format)
rd_test(core/test_chat.c rd_format)
