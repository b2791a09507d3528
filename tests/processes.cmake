# The daemon's processes with a runner that needs no model, and what is started against them.
add_executable(processes fake/process.c fake/echo.c)
target_link_libraries(processes PRIVATE rd_daemon)
add_executable(redraft-scripted fake/process.c)
target_compile_definitions(redraft-scripted PRIVATE RD_SCRIPT)
target_link_libraries(redraft-scripted PRIVATE rd_daemon rd_script)
rd_test(lsp/test_processes.c rd_lsp)
target_sources(test_processes PRIVATE e2e/client.c fake/echo.c)
target_compile_definitions(test_processes PRIVATE RD_PROCESS="$<TARGET_FILE:processes>")
# The program itself with the built-in model and a real cache file.
rd_test(lsp/test_cache_sessions.c rd_lsp)
target_sources(test_cache_sessions PRIVATE e2e/client.c)
target_compile_definitions(test_cache_sessions PRIVATE RD_PROGRAM="$<TARGET_FILE:redraft>")
if(RD_SANITIZE MATCHES "thread") # the model is too slow there; test_keeper and test_worker run the same threads
    set_tests_properties(test_cache_sessions PROPERTIES DISABLED TRUE)
endif()
rd_test(lsp/test_follow.c rd_lsp)
rd_test(lsp/test_place.c rd_lsp)
# Short here; a long one by hand (storm.c says how).
add_executable(storm e2e/storm.c e2e/client.c fake/echo.c)
target_link_libraries(storm PRIVATE rd_lsp)
add_test(NAME storm COMMAND storm $<TARGET_FILE:processes> --seconds 5)
add_test(NAME storm_of_deaths COMMAND storm $<TARGET_FILE:processes> --seconds 8 --clients 3 --kill-ms 400)
# What it takes: printed, never judged.
add_executable(bench_memory bench/memory.c e2e/client.c)
target_link_libraries(bench_memory PRIVATE rd_lsp)
add_test(NAME bench_memory COMMAND bench_memory $<TARGET_FILE:redraft-scripted> stdio --alone)
# The first text after a restart: by hand.
add_executable(bench_restart bench/restart.c e2e/client.c)
target_link_libraries(bench_restart PRIVATE rd_lsp)
# One failing call a session; a sample here, each one by hand (torture.c says how).
if(NOT RD_SANITIZE)
    add_library(faultshim MODULE fake/faultshim.c)
    target_compile_definitions(faultshim PRIVATE _GNU_SOURCE)
    set_target_properties(faultshim PROPERTIES PREFIX "")
    add_executable(torture e2e/torture.c e2e/client.c fake/forms.c)
    target_link_libraries(torture PRIVATE rd_lsp)
    add_test(NAME torture COMMAND torture $<TARGET_FILE:faultshim>
        $<TARGET_FILE:redraft-scripted> --every 97)
endif()
