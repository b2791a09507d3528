# Bad files and bad calls by name, each with the outcome that is required. `ctest -L hostile` runs them alone.
file(GLOB hostile_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/hostile/*.c)
add_executable(hostile ${hostile_sources} e2e/client.c fake/forms.c)
target_link_libraries(hostile PRIVATE rd_lsp)
target_compile_definitions(hostile PRIVATE _GNU_SOURCE)
if(RD_SANITIZE)
    target_compile_definitions(hostile PRIVATE RD_SANITIZED)
endif()
target_include_directories(hostile PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/hostile)
foreach(group safetensors config tokenizer place jsonl call disk)
    add_test(NAME hostile_${group} COMMAND hostile ${group} $<TARGET_FILE:redraft>
        ${CMAKE_CURRENT_SOURCE_DIR}/data ${PROJECT_SOURCE_DIR}/core/builtin)
    set_tests_properties(hostile_${group} PROPERTIES LABELS hostile)
endforeach()
# What a peer of the daemon may say; the model is a script.
foreach(group editor agent)
    add_test(NAME hostile_${group} COMMAND hostile ${group} $<TARGET_FILE:redraft-scripted>
        ${CMAKE_CURRENT_SOURCE_DIR}/data ${PROJECT_SOURCE_DIR}/core/builtin)
    set_tests_properties(hostile_${group} PROPERTIES LABELS hostile)
endforeach()
