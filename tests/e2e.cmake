# The recorded answers of the reference code, on each path; a path that the machine lacks is refused by name
# and counts as skipped.
foreach(isa plain avx2 avx512)
    add_test(NAME conformance_${isa} COMMAND $<TARGET_FILE:redraft> conformance
        ${CMAKE_CURRENT_SOURCE_DIR}/data/golden --isa ${isa})
    set_tests_properties(conformance_${isa} PROPERTIES SKIP_REGULAR_EXPRESSION "this processor has no")
endforeach()
add_test(NAME command_line COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/command_line.sh
    $<TARGET_FILE:redraft> ${PROJECT_SOURCE_DIR})
add_test(NAME conformance_folders COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/conformance.sh
    $<TARGET_FILE:redraft> ${CMAKE_CURRENT_SOURCE_DIR}/data/golden)
add_test(NAME train COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/train.sh $<TARGET_FILE:redraft>)
add_test(NAME gpu_scripts COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/gpu_scripts.sh $<TARGET_FILE:redraft>
    ${PROJECT_SOURCE_DIR})
add_test(NAME fetch COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/fetch.sh
    ${PROJECT_SOURCE_DIR}/core/train/fetch-corpus)
set_tests_properties(fetch PROPERTIES SKIP_RETURN_CODE 77)
add_test(NAME bench COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/bench.sh $<TARGET_FILE:redraft>)
# Stock MCP clients, in both eras of the protocol.
set(mcp ${CMAKE_CURRENT_SOURCE_DIR}/e2e/mcp/run.sh ${PROJECT_BINARY_DIR}/mcp-packages)
add_test(NAME mcp_clients COMMAND sh ${mcp} $<TARGET_FILE:redraft> mcp --alone)
add_test(NAME mcp_daemon COMMAND sh ${mcp} $<TARGET_FILE:redraft> mcp)
set_tests_properties(mcp_clients mcp_daemon PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900
    RESOURCE_LOCK mcp_packages)

# Editors, as far as npm has them: the protocol library, what Neovim 0.12 does, and the extension's package. Skipped
# where Node 20, npm or the registry cannot be had.
set(protocol ${CMAKE_CURRENT_SOURCE_DIR}/e2e/protocol/run.sh ${PROJECT_BINARY_DIR}/protocol-packages)
add_test(NAME protocol_client COMMAND sh ${protocol} frames.js session.js --
    $<TARGET_FILE:redraft> stdio --alone)
add_test(NAME protocol_daemon COMMAND sh ${protocol} frames.js session.js --
    $<TARGET_FILE:redraft> stdio)
add_test(NAME recorded_neovim COMMAND sh ${protocol} recorded-neovim.js --
    $<TARGET_FILE:redraft> stdio --alone)
set(editor_tests protocol_client protocol_daemon recorded_neovim)
add_test(NAME protocol_client_scripted COMMAND sh ${protocol} frames.js session.js --
    $<TARGET_FILE:redraft-scripted> stdio --alone)
add_test(NAME protocol_daemon_scripted COMMAND sh ${protocol} frames.js session.js --
    $<TARGET_FILE:redraft-scripted> stdio)
add_test(NAME recorded_neovim_scripted COMMAND sh ${protocol} recorded-neovim.js --
    $<TARGET_FILE:redraft-scripted> stdio --alone)
list(APPEND editor_tests protocol_client_scripted protocol_daemon_scripted recorded_neovim_scripted)
if(NOT RD_SANITIZE)
    add_test(NAME vscode_package COMMAND sh ${PROJECT_SOURCE_DIR}/editors/vscode/package
        ${PROJECT_BINARY_DIR}/redraft.vsix ${PROJECT_BINARY_DIR}/vscode-package)
    list(APPEND editor_tests vscode_package)
endif()
set_tests_properties(${editor_tests} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)

# The plugin for Neovim, typed into: with a server that has a script, with the daemon, with the daemon and a model that has one.
set(neovim ${CMAKE_CURRENT_SOURCE_DIR}/e2e/neovim/run.sh ${PROJECT_SOURCE_DIR}/editors/neovim)
add_test(NAME neovim COMMAND sh ${neovim} $<TARGET_FILE:redraft> ghost.lua plugin.lua native.lua)
add_test(NAME neovim_daemon COMMAND sh ${neovim} $<TARGET_FILE:redraft> daemon.lua)
set(neovim_tests neovim neovim_daemon)
if(TARGET redraft-scripted)
    add_test(NAME neovim_scripted COMMAND sh ${neovim} $<TARGET_FILE:redraft-scripted> scripted.lua)
    list(APPEND neovim_tests neovim_scripted)
endif()
set_tests_properties(${neovim_tests} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
