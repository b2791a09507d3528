/* test_report.c - the JSON is JSON with the promised keys; the page carries no text of a file unescaped. */
#include "core/eval/report.h"

#include "core/format/record.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rd_report small(void)
{
    static char engine[] = "cpu \"plain\"";
    rd_report r = { .seed = 1,
                    .qualities = 2,
                    .quality = { 0.0f, 0.5f },
                    .main = 1,
                    .drafts = true,
                    .gate = 0.4,
                    .bits_model = 1.5,
                    .bits_ngram = NAN,
                    .engine = engine };
    static const char set[] =
        "{\"task_id\":\"<a>\",\"prefix\":\"if (a < b) {\\n\",\"suffix\":\"\\n}\\n\",\"reference\":"
        "\"x && y;\",\"set\":\"line\",\"language\":\"c\"}\n"
        "{\"task_id\":\"b\",\"prefix\":\"p\",\"suffix\":\"s\",\"reference\":\"<script>\"}\n";
    char path[] = "/tmp/rd_reportXXXXXX";
    int fd = mkstemp(path);
    rd_error err;
    FILE *f = fdopen(fd, "w");

    fputs(set, f);
    fclose(f);
    cr_assert(!rd_cases_read(&r.cases, path, &err), "%s", err.text);
    remove(path);
    r.sets = rd_sets_of(&r.cases, r.set);
    for (int q = 0; q < 2; q++) {
        rd_row *row = rd_report_add(&r, RD_ROW_BOTH, "both", r.quality[q]);

        for (int i = 0; i < r.cases.n; i++) {
            size_t n;
            const char *text = rd_case_text(&r.cases, i, &n);
            const char *answer = i ? "<b>&" : "x && y;";

            rd_buf_text(&row->text[i], answer);
            row->outcome[i] = rd_outcome_of(answer, strlen(answer), text, n);
            row->outcome[i].confidence = 0.5;
            row->outcome[i].ms = 10.0;
            row->outcome[i].forwards = 3.0;
        }
    }
    rd_row *empty = rd_report_add(&r, RD_ROW_FLOOR, "empty", 0.0f);

    for (int i = 0; i < r.cases.n; i++) empty->outcome[i] = rd_outcome_of("", 0, "x", 1);
    return r;
}

Test(report, as_json_has_the_promised_shape)
{
    rd_report r = small();
    rd_buf out = { 0 };
    rd_record *record = NULL;
    rd_error err;
    size_t n;

    rd_report_json(&r, &out);
    cr_assert(!rd_record_parse(out.data, out.len, "report", &record, &err), "%s", err.text);
    rd_value top = rd_record_top(record), sets = rd_value_get(top, "sets");

    cr_assert_eq(rd_value_count(sets), 2);
    rd_value first = rd_value_at(sets, 0);

    cr_assert_str_eq(rd_value_text(rd_value_get(first, "name"), &n), "line");
    cr_assert_eq(rd_value_int(rd_value_get(first, "cases"), -1), 1);
    cr_assert_float_eq(rd_value_number(rd_value_get(first, "em"), -1.0), 1.0, 1e-9);
    cr_assert_float_eq(rd_value_number(rd_value_get(first, "edit_similarity"), -1.0), 1.0, 1e-9);
    cr_assert_eq(rd_value_count(rd_value_get(first, "ci")), 2);
    rd_value precision = rd_value_get(first, "precision_at");

    cr_assert_float_eq(rd_value_number(rd_value_get(precision, "0.1"), -1.0), 1.0, 1e-9);
    cr_assert_float_eq(rd_value_number(rd_value_get(precision, "0.3"), -1.0), 1.0, 1e-9);
    cr_assert_float_eq(rd_value_number(rd_value_get(first, "forwards"), -1.0), 3.0, 1e-9);
    cr_assert_float_eq(rd_value_number(rd_value_get(first, "ms"), -1.0), 10.0, 1e-9);
    cr_assert_eq(rd_value_count(rd_value_get(rd_value_get(top, "floors"), "empty")), 2);
    cr_assert_eq(rd_value_count(rd_value_get(top, "dial")), 2);
    cr_assert(rd_value_is_null(rd_value_get(top, "faults")));
    cr_assert_eq(rd_value_count(rd_value_get(first, "shares")), RD_SHARES);
    rd_value gate = rd_value_get(rd_value_get(top, "gate"), "model");

    cr_assert_float_eq(rd_value_number(rd_value_get(gate, "confidence"), -1.0), 0.4, 1e-9);
    cr_assert_float_eq(rd_value_number(rd_value_get(gate, "shown"), -1.0), 1.0, 1e-9);
    rd_record_free(record);
    rd_buf_clear(&out);
    rd_report_clear(&r);
}

Test(report, length_loss_is_that_of_the_model_alone)
{
    rd_report r = small();
    rd_row *alone = rd_report_add(&r, RD_ROW_MODEL, "model", 0.5f);
    rd_row *given = rd_report_add(&r, RD_ROW_LENGTH, "length given", 0.5f);
    rd_buf out = { 0 };
    rd_record *record = NULL;
    rd_error err;

    alone->outcome[1].exact = true; /* of the two sets, one case each: 0 of 1 and 1 of 1 */
    given->outcome[0].exact = given->outcome[1].exact = true;
    rd_report_json(&r, &out);
    cr_assert(!rd_record_parse(out.data, out.len, "report", &record, &err), "%s", err.text);
    rd_value sets = rd_value_get(rd_record_top(record), "sets");

    for (int i = 0; i < 2; i++)
        cr_expect_float_eq(
            rd_value_number(rd_value_get(rd_value_at(sets, (size_t)i), "length_loss"), -9.0),
            i ? 0.0 : 1.0, 1e-9);
    rd_record_free(record);
    rd_buf_clear(&out);
    rd_report_clear(&r);
}

Test(report, as_a_page_escapes_what_files_and_models_say)
{
    rd_report r = small();
    rd_buf out = { 0 };

    rd_report_page(&r, &out);
    cr_assert(strstr(out.data, "<!doctype html>") == out.data);
    cr_assert_null(strstr(out.data, "<script>"));
    cr_assert_null(strstr(out.data, "<b>&"));
    cr_assert(strstr(out.data, "&lt;script&gt;"), "the wrong example shows its reference");
    cr_assert(strstr(out.data, "&lt;b&gt;&amp;"), "and the answer");
    cr_assert(strstr(out.data, "x &amp;&amp; y;"), "the right example shows its answer");
    cr_assert_null(strstr(out.data, "nan"));
    int pictures = 0;

    for (const char *at = out.data; (at = strstr(at, "<svg")); at++) pictures++;
    cr_assert_eq(pictures, 3, "the dial, the calibration, the shares");
    cr_assert_null(strstr(out.data, "http"), "nothing is fetched");
    rd_buf_clear(&out);
    rd_report_clear(&r);
}
