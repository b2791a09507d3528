# Shared objects that the host loads: one that forwards to the CPU and fails as it is told, and one that is no plugin.
add_library(fakeplugin MODULE fake/plugin.c)
target_link_libraries(fakeplugin PRIVATE rd_cpu rd_base)
add_library(emptyplugin MODULE fake/nothing.c)
target_link_libraries(emptyplugin PRIVATE rd_flags)
set_target_properties(fakeplugin emptyplugin PROPERTIES PREFIX "")
rd_test(core/test_plugin.c rd_core rd_cpu)
rd_test(lsp/test_worker_device.c rd_daemon)
foreach(target test_plugin test_worker_device)
    add_dependencies(${target} fakeplugin emptyplugin)
    target_compile_definitions(${target} PRIVATE RD_FAKE_PLUGIN="$<TARGET_FILE:fakeplugin>"
        RD_EMPTY_PLUGIN="$<TARGET_FILE:emptyplugin>")
endforeach()
add_test(NAME plugins COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/plugins.sh $<TARGET_FILE:redraft>
    $<TARGET_FILE:fakeplugin>)
