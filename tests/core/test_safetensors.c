/* test_safetensors.c - real files open, torn and hostile ones are refused by name. */
#include "core/format/safetensors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static rd_status parse(const char *header, size_t data_bytes, rd_error *err)
{
    static char file[4096];
    uint64_t n = strlen(header);
    rd_safetensors *s = NULL;

    memset(file, 0, sizeof file);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    rd_status status = rd_safetensors_parse(file, 8 + n + data_bytes, "case.safetensors", &s, err);
    if (!status) rd_safetensors_close(s);
    return status;
}

static void refused(const char *header, size_t data_bytes)
{
    rd_error err = { 0 };

    cr_expect_eq(parse(header, data_bytes, &err), RD_INVALID, "accepted: %s", header);
    cr_expect(strstr(err.text, "case.safetensors"), "no file name in: %s", err.text);
}

Test(safetensors, opens_single_and_sharded_models)
{
    rd_error err = { 0 };
    rd_safetensors *s = NULL;

    cr_assert_eq(rd_safetensors_open(RD_TEST_DATA "/golden/models/m1_base", &s, &err), RD_OK, "%s",
                 err.text);
    const rd_tensor *t = rd_safetensors_find(s, "model.word_embeddings.weight");
    cr_assert(t);
    cr_expect_eq(t->shape[0], 320);
    cr_expect_eq(t->shape[1], 64);
    cr_expect_null(rd_safetensors_find(s, "no.such.tensor"));
    rd_safetensors_close(s);

    cr_assert_eq(rd_safetensors_open(RD_TEST_DATA "/golden/models/m2_sharded", &s, &err), RD_OK,
                 "%s", err.text);
    cr_expect(rd_safetensors_find(s, "lm_head.weight"));
    cr_expect(rd_safetensors_find(s, "model.layers.3.mlp.experts.7.down_proj.weight"));
    rd_safetensors_close(s);
}

Test(safetensors, writes_what_it_reads_back)
{
    char path[] = "/tmp/rd_test_XXXXXX";
    const float data[6] = { 1, -2, 3.5f, 0, 7, -0.25f };
    const rd_tensor t = {
        .name = "w", .dtype = RD_F32, .rank = 2, .shape = { 2, 3 }, .data = data, .bytes = 24
    };
    const char *meta[] = { "made_by", "a test", NULL };
    rd_error err = { 0 };
    rd_safetensors *s = NULL;
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(rd_safetensors_write(path, &t, 1, meta, &err), RD_OK, "%s", err.text);

    cr_assert_eq(rd_safetensors_open(path, &s, &err), RD_OK, "%s", err.text);
    const rd_tensor *back = rd_safetensors_find(s, "w");
    cr_assert(back);
    cr_expect_eq(back->bytes, sizeof data);
    cr_expect_eq(memcmp(back->data, data, sizeof data), 0);
    cr_expect_str_eq(rd_safetensors_meta(s, "made_by"), "a test");
    rd_safetensors_close(s);
    unlink(path);
}

Test(safetensors, refuses_hostile_headers_by_name)
{
    rd_error err = { 0 };

    cr_expect_eq(parse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, &err),
                 RD_OK, "%s", err.text);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}", 8);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],"
            "\"data_offsets\":[0,0]}}",
            0);
    refused("{\"a\":{\"dtype\":\"X9\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
            4);
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8);
    refused("{\"a\":[1]}", 0);
    refused("{", 0);
}

Test(safetensors, refuses_a_header_longer_than_the_file)
{
    unsigned char file[16];
    rd_error err = { 0 };
    rd_safetensors *s = NULL;

    memset(file, 0xff, sizeof file);
    for (size_t n = 0; n <= sizeof file; n++)
        cr_expect_eq(rd_safetensors_parse(file, n, "torn", &s, &err), RD_INVALID);
}

/* ---- the header's usual form, and all others ---- */

#define T(name, more) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[1]," more "\"data_offsets\":[0,4]}"

/* Headers that say one thing, a tensor w of one number: in the form that is read straight, and in forms that are not. */
static const char *const same[] = {
    "{" T("w", "") "}",
    " { \"w\" :\t{ \"data_offsets\" : [ 0 , 4 ] ,\r\n \"shape\" : [ 1 ] , \"dtype\" : \"F32\" } } "
    "\n",
    "{\"__metadata__\":{},\"w\":{\"shape\":[1],\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
    "{\"__metadata__\":{\"k\":\"}\\\"{ \\\\\"}," T("w", "") "}",
    "{" T("w", "") ",\"__metadata__\":{\"k\":\"\\u00e9\"}}",
    "{" T("\\u0077", "") "}",         /* an escape */
    "{" T("w", "\"more\":null,") "}", /* a key that means nothing */
};

Test(safetensors, says_the_same_whatever_the_form_of_its_header)
{
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char file[512] = { 0 };
        uint64_t n = strlen(same[i]) - (same[i][0] == ' ');
        rd_safetensors *s = NULL;
        rd_error err = { 0 };

        memcpy(file, &n, 8);
        memcpy(file + 8, same[i] + (same[i][0] == ' '), n);
        cr_assert(!rd_safetensors_parse(file, 8 + n + 4, "f", &s, &err), "%s: %s", same[i],
                  err.text);
        const rd_tensor *t = rd_safetensors_find(s, "w");

        cr_assert(t && rd_safetensors_count(s) == 1, "%s", same[i]);
        cr_assert(t->dtype == RD_F32 && t->rank == 1 && t->shape[0] == 1 && t->bytes == 4);
        cr_assert_eq((const char *)t->data, file + 8 + n);
        rd_safetensors_close(s);
    }
}

Test(safetensors, metadata_are_read_from_the_usual_form_too)
{
    const char *header = "{\"__metadata__\":{\"a\":\"}\\\"{ \\\\\",\"b\":\"\"}," T("w", "") "}";
    char file[512] = { 0 };
    uint64_t n = strlen(header);
    rd_safetensors *s = NULL;

    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    cr_assert(!rd_safetensors_parse(file, 8 + n + 4, "f", &s, NULL));
    cr_assert_str_eq(rd_safetensors_meta(s, "a"), "}\"{ \\");
    cr_assert_str_eq(rd_safetensors_meta(s, "b"), "");
    rd_safetensors_close(s);
}

Test(safetensors, the_usual_form_is_no_way_around_a_refusal)
{
    static const char *const bad[] = {
        "{" T("w", "") "," T("w", "") "}",
        "{\"__metadata__\":{\"k\":1}," T("w", "") "}",
        "{\"__metadata__\":{\"k\":\"1\" \"l\"}," T("w", "") "}",
        "{\"__metadata__\":{\"k\":\"\\q\"}," T("w", "") "}",
        "{\"__metadata__\":{},\"__metadata__\":{}," T("w", "") "}",
        "{" T("w", "") ",}",
        "{," T("w", "") "}",
        "{" T("w", "") "} x",
        "{" T("w", "\"dtype\":\"F32\",") "}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1,],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4e0]}}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,18446744073709551620]}}",
        "{\"w\":{\"dtype\":\"F32\\0\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i], 4);
}

/* Every cut of a header of the usual form is a header of none. */
Test(safetensors, a_header_cut_anywhere_is_refused)
{
    const char *header = "{\"__metadata__\":{\"k\":\"v\"}," T("w", "") "}";
    char cut[256];

    for (size_t n = 1; n < strlen(header); n++) {
        snprintf(cut, sizeof cut, "%.*s", (int)n, header);
        refused(cut, 4);
    }
}
