/* test_uri.c - a URI is one path or none. */
#include "lsp/settings.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Test(uri, becomes_a_path)
{
    static const char *const pairs[][2] = {
        { "file:///a/b.c", "/a/b.c" },
        { "file:///a%20b", "/a b" },
        { "file://localhost/a", "/a" },
        { "FILE://LOCALHOST/a", "/a" },
        { "file:/a", "/a" },
        { "file:///%C3%BC/\xc3\xbc", "/\xc3\xbc/\xc3\xbc" },
        { "file:///c%2B%2b/a%25b%3Fc%23", "/c++/a%b?c#" },
        { "file:///", "/" },
        { "file:///a/../b//c/", "/a/../b//c/" },
    };

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char path[64];

        cr_assert(rd_path_of_uri(pairs[i][0], path, sizeof path), "%s", pairs[i][0]);
        cr_assert_str_eq(path, pairs[i][1]);
    }
}

Test(uri, is_refused_where_it_could_be_two_paths_or_none)
{
    static const char *const uris[] = { "",
                                        "/a",
                                        "file:",
                                        "file://",
                                        "file:a",
                                        "file://host/a",
                                        "file://localhost",
                                        "file://localhostile/a",
                                        "untitled:Untitled-1",
                                        "http:///a",
                                        "file:///a%",
                                        "file:///a%2",
                                        "file:///a%zz",
                                        "file:///a%-1",
                                        "file:///a%\x11\x12",
                                        "file:///a%00b",
                                        "file:///a%2Fb",
                                        "file:///a%2fb",
                                        "file:///a?b",
                                        "file:///a#b" };

    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        char path[64];

        cr_assert_not(rd_path_of_uri(uris[i], path, sizeof path), "%s", uris[i]);
    }
}

Test(uri, fits_with_its_nul_or_is_refused)
{
    char path[4];

    cr_assert(rd_path_of_uri("file:///ab", path, 4));
    cr_assert_str_eq(path, "/ab");
    cr_assert_not(rd_path_of_uri("file:///abc", path, 4));
    cr_assert_not(rd_path_of_uri("file:///%61%62%63", path, 4));
    cr_assert_not(rd_path_of_uri("file:///", path, 0));
}

Test(uri, is_made_of_any_path_and_gives_it_back)
{
    rd_buf uri = { 0 };
    char all[257] = "/", back[257];

    for (int i = 1; i < 256; i++) all[i] = (char)i;
    rd_uri_of_path(all, &uri);
    cr_assert(rd_path_of_uri(uri.data, back, sizeof back));
    cr_assert_str_eq(back, all);
    rd_buf_reset(&uri);
    rd_uri_of_path("/a b/\xc3\xbc#.c", &uri);
    cr_assert_str_eq(uri.data, "file:///a%20b/%C3%BC%23.c");
    rd_buf_clear(&uri);
}
