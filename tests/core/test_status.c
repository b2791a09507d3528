/* test_status.c - what a message looks like when the outside world is in it. */
#include "core/base/memory.h"
#include "core/base/status.h"

#include <criterion/criterion.h>
#include <string.h>

Test(status, a_message_that_is_too_long_keeps_the_file_and_what_is_wrong)
{
    char name[3000];
    rd_error err;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    rd_fail(&err, RD_INVALID, "a.safetensors: %s: its shape overflows", name);
    cr_assert(!strncmp(err.text, "a.safetensors: nnn", 18), "%s", err.text);
    cr_assert(strstr(err.text, "...nnn"), "%s", err.text);
    cr_assert(strstr(err.text, "n: its shape overflows"), "%s", err.text);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
}

Test(status, a_long_message_is_not_cut_inside_a_character)
{
    for (size_t shift = 0; shift < 3; shift++) {
        char name[901] = { 0 };
        rd_error err;

        for (size_t i = 0; i < 300; i++) memcpy(name + 3 * i, "\xe2\x82\xac", 3);
        rd_fail(&err, RD_INVALID, "%.*s%s", (int)shift, "abc", name);

        const char *dots = strstr(err.text, "...");
        cr_assert(dots);
        cr_assert_eq((size_t)(dots - err.text - (ptrdiff_t)shift) % 3, 0);
        cr_assert(!strncmp(dots + 3, "\xe2\x82\xac", 3));
    }
}

Test(status, what_deceives_a_terminal_becomes_question_marks)
{
    rd_error err;

    rd_fail(&err, RD_INVALID,
            "a\033[2J\n\x7f|\xc2\x9b|\xe2\x80\xae|\xe2\x81\xa6|\xc3\xa9|\xe2\x82\xac");

    cr_assert_str_eq(err.text, "a?[2J??|?\?|??\?|??\?|\xc3\xa9|\xe2\x82\xac");
}

Test(status, sizes_that_overflow_are_refused)
{
    size_t out = 7;

    cr_assert(!rd_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    cr_assert(!rd_add(SIZE_MAX, 1, &out));
    cr_assert_eq(out, 7);
    cr_assert_null(rd_try_alloc_array((size_t)1 << 61, 8));
    cr_assert_null(rd_try_alloc_array((size_t)3, SIZE_MAX / 2));
}
