# The pools under load, with any sanitizer or none; and a race that the thread sanitizer must see.
rd_test(tsan/test_pools.c rd_train rd_cpu)
if(RD_SANITIZE MATCHES "thread")
    add_executable(race tsan/race.c)
    target_link_libraries(race PRIVATE rd_flags Threads::Threads)
    add_test(NAME the_sanitizer_sees_a_race COMMAND race)
    set_tests_properties(the_sanitizer_sees_a_race PROPERTIES PASS_REGULAR_EXPRESSION "data race")
endif()
