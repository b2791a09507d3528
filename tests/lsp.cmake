# What the front links too.
foreach(name wire repair message rpc text document sync glob exclude)
    rd_test(lsp/test_${name}.c rd_lsp)
endforeach()
# Of the daemon: each with what it talks to played by the test.
foreach(name tidy worth kept settings scope uri context roots mcp todo rewrite doubt actions answer)
    rd_test(lsp/test_${name}.c rd_daemon)
endforeach()
rd_test(lsp/test_worker.c rd_script rd_daemon)
target_sources(test_worker PRIVATE fake/cache.c)
rd_test(lsp/test_keeper.c rd_daemon)
target_sources(test_keeper PRIVATE fake/cache.c)
# A connection with a made-up editor, clock and model around it.
add_library(rd_editor STATIC fake/editor.c)
target_link_libraries(rd_editor PUBLIC rd_daemon rd_test_runner)
rd_test(lsp/test_suggest.c rd_editor)

# Times of frames and documents: printed, never judged.
add_executable(bench_documents bench/documents.c)
target_link_libraries(bench_documents PRIVATE rd_lsp)
add_test(NAME bench_documents COMMAND bench_documents)
# A real file typed into a daemon: run by hand, docs/benchmarks/README.md says how.
add_executable(bench_typing bench/typing.c)
target_link_libraries(bench_typing PRIVATE rd_lsp)
# A prefix out of the cache file, against computing it and against pread: by hand too.
add_executable(bench_restore bench/restore.c)
target_link_libraries(bench_restore PRIVATE rd_daemon rd_tools rd_core rd_cpu)
