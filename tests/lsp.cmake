foreach(name wire repair message rpc text document sync glob exclude)
    rd_test(lsp/test_${name}.c rd_lsp)
endforeach()
# Times of frames and documents: printed, never judged.
add_executable(bench_documents bench/documents.c)
target_link_libraries(bench_documents PRIVATE rd_lsp)
add_test(NAME bench_documents COMMAND bench_documents)
# Of the daemon: each with what it talks to played by the test.
foreach(name roots mcp)
    rd_test(lsp/test_${name}.c rd_daemon)
endforeach()
