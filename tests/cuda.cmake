# The CUDA backend on an emulated GPU (tests/plugins/cuda/emulator): compiled by the host's C++ compiler, no CUDA needed.
#
#   rd_emulator         the emulator; what links it compiles CUDA words as C++
#   rd_cuda_emulated    the backend, for tests: rd_backend_entry and the functions of its device.h
#   rd_cuda_emulated_so the plugin as the program loads it: tests/emulated/libredraft-cuda.so in the build folder
#
# The thread sanitizer knows nothing of fibres that switch by hand.
if(RD_SANITIZE MATCHES "thread")
    return()
endif()
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
    message(STATUS "no C++ compiler: the CUDA backend is not tested on an emulated GPU")
    return()
endif()
enable_language(CXX)
include(CheckCXXCompilerFlag)

set(rd_emulated_flags -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-variable -fvisibility=hidden -fno-math-errno -ffp-contract=off
    -fno-strict-aliasing)
# What a kernel did not set is nothing that looks right.
check_cxx_compiler_flag(-ftrivial-auto-var-init=pattern RD_HAS_AUTO_VAR_INIT)
if(RD_HAS_AUTO_VAR_INIT)
    list(APPEND rd_emulated_flags -ftrivial-auto-var-init=pattern)
endif()
if(RD_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND rd_emulated_flags -fsanitize-sections=rd_shared) # red zones between __shared__ arrays
endif()
if(RD_WERROR)
    list(APPEND rd_emulated_flags -Werror)
endif()

file(GLOB emulator CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/plugins/cuda/emulator/*.cpp)
add_library(rd_emulator STATIC ${emulator})
target_compile_features(rd_emulator PUBLIC cxx_std_17)
target_compile_definitions(rd_emulator PUBLIC $<$<COMPILE_LANGUAGE:CXX>:RD_EMULATED>)
target_compile_options(rd_emulator PUBLIC "$<$<COMPILE_LANGUAGE:CXX>:${rd_emulated_flags}>")
target_include_directories(rd_emulator BEFORE PUBLIC # <cublas_v2.h> is there
    $<$<COMPILE_LANGUAGE:CXX>:${CMAKE_CURRENT_SOURCE_DIR}/plugins/cuda/emulator>)
target_link_libraries(rd_emulator PUBLIC rd_flags)

# Tests of the emulator; a test of kernels by themselves is C++ that includes plugins/cuda/gpu.cuh, too.
foreach(name emulator emulated_numbers emulated_runtime)
    rd_test(plugins/cuda/test_${name}.cpp rd_emulator)
    # Kernels that break a rule end by abort, whoever sees it first.
    set_property(TEST test_${name} APPEND PROPERTY ENVIRONMENT ASAN_OPTIONS=abort_on_error=1)
endforeach()

file(GLOB backend CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/plugins/cuda/*.cu)
if(NOT backend)
    return()
endif()
set_source_files_properties(${backend} PROPERTIES LANGUAGE CXX)
add_library(rd_cuda_emulated STATIC ${backend})
target_compile_options(rd_cuda_emulated PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O1>) # many templates, short runs
target_link_libraries(rd_cuda_emulated PUBLIC rd_emulator rd_base)

file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/emulated.map "{ global: rd_*_entry; local: *; };\n")
add_library(rd_cuda_emulated_so MODULE $<TARGET_OBJECTS:rd_cuda_emulated>)
set_target_properties(rd_cuda_emulated_so PROPERTIES OUTPUT_NAME redraft-cuda PREFIX lib
    LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/emulated)
target_link_options(rd_cuda_emulated_so PRIVATE
    -Wl,--version-script=${CMAKE_CURRENT_BINARY_DIR}/emulated.map)
target_link_libraries(rd_cuda_emulated_so PRIVATE rd_emulator rd_base)

# A test of the backend, tests/plugins/cuda/test_NAME.c, built twice (tests/plugins/cuda/backend.h): test_cuda_NAME on the emulated
# GPU, test_gpu_NAME on a real one by the plugin, where that is built; it skips where there is no GPU. More libraries may follow.
function(rd_cuda_test name)
    add_executable(test_cuda_${name} plugins/cuda/test_${name}.c)
    target_compile_definitions(test_cuda_${name} PRIVATE RD_TEST_EMULATED)
    target_link_libraries(test_cuda_${name} PRIVATE rd_cuda_emulated)
    set(programs test_cuda_${name})
    if(TARGET rd_cuda)
        add_executable(test_gpu_${name} plugins/cuda/test_${name}.c)
        target_compile_definitions(test_gpu_${name} PRIVATE RD_GPU_PLUGIN_BUILT="$<TARGET_FILE:rd_cuda>")
        add_dependencies(test_gpu_${name} rd_cuda)
        list(APPEND programs test_gpu_${name})
    endif()
    foreach(program ${programs})
        target_link_libraries(${program} PRIVATE rd_test_runner rd_core rd_cpu ${ARGN} rd_flags)
        target_compile_definitions(${program} PRIVATE RD_TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}/data")
        target_compile_options(${program} PRIVATE -Wno-missing-prototypes -Wno-strict-prototypes
        -Wno-missing-field-initializers)
        add_test(NAME ${program} COMMAND ${program})
        set_tests_properties(${program} PROPERTIES ENVIRONMENT
            "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/lsan.supp:print_suppressions=0")
    endforeach()
endfunction()

# Functions that kernels and the host share.
foreach(name layout sight route)
    rd_test(plugins/cuda/test_${name}.c rd_core)
endforeach()
foreach(name device attention kv pick products moe)
    rd_cuda_test(${name})
endforeach()
rd_cuda_test(learner rd_train)
rd_test(plugins/cuda/test_learner_round.cpp rd_cuda_emulated rd_train rd_cpu)
target_compile_options(test_learner_round PRIVATE -Wno-missing-field-initializers)
rd_test(plugins/cuda/test_budget.c rd_cuda_emulated rd_tools)
add_test(NAME emulated COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/e2e/emulated.sh $<TARGET_FILE:redraft>
    $<TARGET_FILE_DIR:rd_cuda_emulated_so> ${CMAKE_CURRENT_SOURCE_DIR}/data/golden ${PROJECT_SOURCE_DIR})
if(RD_SANITIZE) # the emulated GPU in a program with a sanitizer takes minutes a pass
    set_tests_properties(emulated PROPERTIES DISABLED TRUE)
endif()

# Whoever looks for a GPU loads the plugin: cuBLAS, some hundred megabytes, must not come with it.
if(TARGET rd_cuda)
    add_test(NAME cuda_without_cublas
        COMMAND sh -c "ldd '$<TARGET_FILE:rd_cuda>' >needed && grep -q 'libc\\.so' needed && ! grep -i cublas needed")
endif()

# The program with that plugin in an editor's session, when the device fails.
rd_test(lsp/test_emulated_device.c rd_lsp rd_core)
target_sources(test_emulated_device PRIVATE e2e/client.c)
target_compile_definitions(test_emulated_device PRIVATE RD_PROGRAM="$<TARGET_FILE:redraft>"
    RD_EMULATED_PLUGINS="$<TARGET_FILE_DIR:rd_cuda_emulated_so>")
add_dependencies(test_emulated_device redraft rd_cuda_emulated_so)
if(RD_SANITIZE)
    set_tests_properties(test_emulated_device PROPERTIES DISABLED TRUE)
endif()
