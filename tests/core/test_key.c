/* test_key.c - BLAKE2b against a second implementation, and that a list of strings is more than its bytes in a row. */
#include "core/base/key.h"

#include <criterion/criterion.h>
#include <string.h>

Test(key, blake2b_is_the_published_one)
{
    char many[1000];

    memset(many, 'x', sizeof many);
    cr_assert_eq(rd_blake2b_64("abc", 3), 0xd8bb14d833d59559u);
    cr_assert_eq(rd_blake2b_64("", 0), 0xe4a6a0577479b2b4u);
    cr_assert_eq(rd_blake2b_64(many, 128), 0x901ce374e8e12402u);
    cr_assert_eq(rd_blake2b_64(many, sizeof many), 0x9a306b894c158617u);
}

Test(key, names_a_list_by_its_strings)
{
    rd_key_maker k;
    char text[33];

    rd_key_begin(&k, "test");
    rd_key_add(&k, "ab", 2);
    rd_key_add_text(&k, "c");
    rd_key_add_text(&k, NULL);
    rd_key key = rd_key_end(&k);

    rd_key_text(&key, text);
    cr_assert_str_eq(text, "adf44d8cd713cb729205236acce4df43");
}

static rd_key key_of(const char *a, const char *b)
{
    rd_key_maker k;

    rd_key_begin(&k, "test");
    rd_key_add_text(&k, a);
    rd_key_add_text(&k, b);
    return rd_key_end(&k);
}

Test(key, differs_where_the_list_does)
{
    rd_key a = key_of("ab", "c"), b = key_of("a", "bc"), c = key_of("abc", ""),
           d = key_of("abc", NULL), again = key_of("ab", "c"), none = { { 0 } };

    cr_assert(rd_key_equal(&a, &again));
    cr_assert(!rd_key_equal(&a, &b));
    cr_assert(!rd_key_equal(&a, &c));
    cr_assert(!rd_key_equal(&c, &d));
    cr_assert(rd_key_is_none(&none));
    cr_assert(!rd_key_is_none(&a));
}
