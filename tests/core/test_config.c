/* test_config.c - configurations of the three generations, and numbers that must be refused. */
#include "core/format/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Test(config, reads_every_recorded_model)
{
    static const struct {
        const char *dir;
        int hidden, capacity;
    } cases[] = {
        { RD_TEST_DATA "/golden/models/m1_base", 64, 0 },
        { RD_TEST_DATA "/golden/models/m2_sharded", 48, 0 },
        { RD_TEST_DATA "/golden/models/m3_bf16", 64, 0 },
        { RD_TEST_DATA "/golden/models/m4_deep", 32, 0 },
    };
    rd_model_config c;
    rd_error err = { 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(rd_config_read(cases[i].dir, &c, &err), RD_OK, "%s", err.text);
        cr_expect_eq(c.hidden_size, cases[i].hidden);
        cr_expect_eq(c.expert_capacity, cases[i].capacity);
        cr_expect_eq(c.rotary_dim, c.head_dim / 2);
    }
    cr_assert_eq(rd_config_read(RD_TEST_DATA "/golden/models/m5_v22", &c, &err), RD_OK);
    cr_expect_gt(c.expert_capacity, 0);
    cr_expect_eq(c.delete_token_id, 266);
    cr_expect_eq(c.split_token_id, 267);
}

Test(config, refuses_what_is_no_configuration)
{
    static const char *const cases[] = { "", "[]", "{}", "{\"hidden_size\": 64}",
                                         "{\"hidden_size\":" };
    rd_model_config c;
    rd_error err = { 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(rd_config_parse(cases[i], strlen(cases[i]), "case.json", &c, &err), RD_INVALID,
                     "accepted: %s", cases[i]);
        cr_expect(strstr(err.text, "case.json"), "no file name in: %s", err.text);
    }
}

Test(config, confidence_is_written_as_it_is_read)
{
    rd_model_config c, again;
    rd_error err = { 0 };
    char dir[] = "/tmp/rd-config-XXXXXX", path[64];

    cr_assert_eq(rd_config_read(RD_SOURCE_DIR "/core/builtin", &c, &err), RD_OK, "%s", err.text);
    cr_assert(c.calibrated);
    cr_assert(mkdtemp(dir));
    cr_assert_eq(rd_config_write(dir, &c, RD_BF16, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_config_read(dir, &again, &err), RD_OK, "%s", err.text);
    cr_expect(again.calibrated);
    cr_expect_float_eq(again.confidence.own[1], c.confidence.own[1], 1e-4f);
    cr_expect_float_eq(again.confidence.draft[5], c.confidence.draft[5], 1e-4f);
    cr_expect_float_eq(again.confidence.copy[2], c.confidence.copy[2], 1e-4f);
    cr_expect_float_eq(again.confidence.lead, c.confidence.lead, 1e-4f);
    cr_expect_float_eq(again.confidence.gate, c.confidence.gate, 1e-4f);
    cr_expect(c.confidence.gate > 0.0f && c.confidence.gate < 1.0f);
    cr_assert_eq(rd_config_read(RD_TEST_DATA "/golden/models/m1_base", &c, &err), RD_OK);
    cr_expect_not(c.calibrated);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

Test(config, a_new_confidence_leaves_the_rest_of_the_file)
{
    char dir[] = "/tmp/rd-config-XXXXXX", path[64], text[4096] = "";
    rd_confidence fitted = { .own = { -1.5f, 0.25f }, .lead = 1.25f };
    rd_model_config c;
    rd_error err = { 0 };

    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    cr_assert_neq(rd_config_set_confidence(dir, &fitted, &err), RD_OK, "there is no file");
    FILE *f = fopen(RD_TEST_DATA "/golden/models/m1_base/config.json", "r");
    size_t n = fread(text, 1, sizeof text - 1, f);

    fclose(f);
    f = fopen(path, "w");
    fwrite(text, 1, n, f);
    fclose(f);
    cr_assert_eq(rd_config_set_confidence(dir, &fitted, &err), RD_OK, "%s", err.text);
    cr_assert_eq(rd_config_read(dir, &c, &err), RD_OK, "%s", err.text);
    cr_expect(c.calibrated);
    cr_expect_eq(c.confidence.own[1], 0.25f);
    cr_expect_eq(c.confidence.lead, 1.25f);
    f = fopen(path, "r");
    memset(text, 0, sizeof text);
    cr_assert_gt(fread(text, 1, sizeof text - 1, f), n);
    fclose(f);
    cr_expect(strstr(text, "\"router_dtype\": \"fp32\""), "a key that nobody reads is kept");
    cr_expect(strstr(text, "\"model_type\"") < strstr(text, "\"vocab_size\""), "and the order");
    unlink(path);
    rmdir(dir);
}
