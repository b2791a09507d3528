# The daemon's processes with a runner that needs no model, and what is started against them.
add_executable(processes fake/process.c fake/echo.c)
target_link_libraries(processes PRIVATE rd_daemon)
rd_test(lsp/test_processes.c rd_lsp)
target_sources(test_processes PRIVATE e2e/client.c fake/echo.c)
target_compile_definitions(test_processes PRIVATE RD_PROCESS="$<TARGET_FILE:processes>")
rd_test(lsp/test_follow.c rd_lsp)
rd_test(lsp/test_place.c rd_lsp)
