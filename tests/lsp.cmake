foreach(name wire repair message rpc text document sync glob exclude)
    rd_test(lsp/test_${name}.c rd_lsp)
endforeach()
foreach(name tidy kept)
    rd_test(lsp/test_${name}.c rd_daemon)
endforeach()
# Times of frames and documents: printed, never judged.
add_executable(bench_documents bench/documents.c)
target_link_libraries(bench_documents PRIVATE rd_lsp)
add_test(NAME bench_documents COMMAND bench_documents)
# A real file typed into a daemon: run by hand, docs/benchmarks/README.md says how.
add_executable(bench_typing bench/typing.c)
target_link_libraries(bench_typing PRIVATE rd_lsp)
