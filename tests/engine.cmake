rd_test(core/test_engine.c rd_tools rd_core rd_cpu)
rd_test(core/test_local.c rd_core rd_cpu)
rd_test(core/test_store.c rd_tools rd_core rd_cpu)

# Many completions in one process: nothing may be held of them. Ten thousand by hand, docs/benchmarks/cpu.md.
add_executable(bench_growth bench/growth.c)
target_link_libraries(bench_growth PRIVATE rd_tools rd_core rd_cpu)
if(RD_SANITIZE)
    target_compile_definitions(bench_growth PRIVATE RD_SANITIZED)
endif()
add_test(NAME growth COMMAND bench_growth tiny 300)
