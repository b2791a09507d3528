rd_test(core/test_shape.c rd_tools rd_core rd_cpu)
# Large files of random weights: run by hand, docs/decisions/0009-packed-weights.md says what for.
add_executable(bench_random_model bench/random_model.c)
target_link_libraries(bench_random_model PRIVATE rd_tools rd_cpu)
