# SQLite with faults, for the tests that also look at the file by themselves.
add_library(rd_faultvfs STATIC fake/faultvfs.c)
target_link_libraries(rd_faultvfs PUBLIC rd_cache PkgConfig::SQLITE3)

rd_test(cache/test_row.c rd_cache)
rd_test(cache/test_cache.c rd_faultvfs)
rd_test(cache/test_cache_purge.c rd_cache)
rd_test(cache/test_cache_faults.c rd_faultvfs)
rd_test(cache/test_cache_hostile.c rd_faultvfs)
set_tests_properties(test_cache_hostile PROPERTIES LABELS hostile)
rd_test(cache/test_cache_processes.c rd_faultvfs)

# A restore beside a plain pread: run by hand, in a folder of the disk in question.
add_executable(bench_cache bench/cache.c)
target_link_libraries(bench_cache PRIVATE rd_cache)
