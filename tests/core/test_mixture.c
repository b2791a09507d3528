/* test_mixture.c - the table of the mixture: what it takes, what it refuses by name, what a run's terms say. */
#include "core/train/mixture.h"

#include <criterion/criterion.h>
#include <string.h>

Test(mixture, takes_numbers_counts_and_switches_by_their_keys)
{
    rd_mixture_options o = rd_mixture_defaults(false);
    rd_error err;

    cr_assert(!rd_mixture_parse(&o, "pairs=off,masked=0.3,drafts=1,rate-weight=2", &err));

    cr_assert(!o.pairs);
    cr_assert_eq(o.masked, 0.3f);
    cr_assert_eq(o.drafts, 1);
    cr_assert_eq(o.ask.rate_weight, 2.0f);
    cr_assert_eq(o.edited, rd_mixture_defaults(false).edited);
    cr_assert(!rd_mixture_parse(&o, "", &err), "nothing is nothing to change");
}

typedef struct refused {
    const char *text, *says;
} refused;

Test(mixture, refuses_by_the_name_of_the_key)
{
    static const refused cases[] = {
        { "hole=1", "no key hole " },
        { "masked", "masked has no value" },
        { "masked=", "masked is ;" },
        { "masked=1.01", "masked is 1.01; it is a number from 0 to 1" },
        { "masked=-0.1", "masked is -0.1" },
        { "masked=nan", "masked is nan" },
        { "masked=0.1x", "masked is 0.1x" },
        { "pairs=1", "pairs is 1; it is on or off" },
        { "drafts=1.5", "drafts is 1.5; it is a whole number from 0 to 3" },
        { "pairs=on,,masked=0", "no key " },
        { "masked=0.6,edited=0.6,rewrites=0", "masked, edited and rewrites are 1.2 together" },
        { "block-8=0,block-16=0,block-32=0", "block-8, block-16 and block-32 are all 0" },
        { "noise-any=0", "noise-any, noise-name, noise-own and noise-fault are all 0" },
        { "hole-line=0,hole-part=0,hole-lines=0,hole-block=0", "are all 0" },
        { "wrong-least=0.5", "wrong-least is above wrong-most" },
        { "rate-least=0.5,rate-most=0.4", "rate-least is above rate-most" },
        { "canvas-short=0.6,canvas-long=0.6", "canvas-short and canvas-long are 1.2" },
        { "rewrite-line=0.6,rewrite-own=0.6", "rewrite-line and rewrite-own are 1.2" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_mixture_options o = rd_mixture_defaults(false);
        rd_error err;

        cr_assert_eq(rd_mixture_parse(&o, cases[i].text, &err), RD_INVALID, "%s", cases[i].text);
        cr_assert(strstr(err.text, cases[i].says), "%s: %s", cases[i].text, err.text);
    }
}

/* What run.txt says is what --mix takes: the same run again. */
Test(mixture, its_terms_make_it_again)
{
    rd_mixture_options o = rd_mixture_defaults(true), again = rd_mixture_defaults(false);
    rd_kept_term term[RD_MIXTURE_TERMS], other[RD_MIXTURE_TERMS];
    rd_buf text = { 0 };
    rd_error err;

    cr_assert(!rd_mixture_parse(&o, "pairs=off,lengths=off,copies=2,confidence=0.25,draft-line=0.7",
                                &err));
    int n = rd_mixture_terms(&o, term);
    for (int i = 0; i < n; i++) {
        cr_assert(!strncmp(term[i].name, "mixture.", 8));
        cr_assert(!term[i].may_change);
        rd_buf_format(&text, "%s%s=%s", i ? "," : "", term[i].name + 8, term[i].value);
    }
    cr_assert(!rd_mixture_parse(&again, text.data, &err), "%s", err.text);

    cr_assert_eq(rd_mixture_terms(&again, other), n);
    for (int i = 0; i < n; i++) cr_assert_str_eq(term[i].value, other[i].value);
    rd_buf_clear(&text);
}

Test(mixture, the_list_names_every_key)
{
    rd_mixture_options o = rd_mixture_defaults(false);
    rd_kept_term term[RD_MIXTURE_TERMS];
    rd_buf text = { 0 };

    rd_mixture_describe(&o, &text);

    int n = rd_mixture_terms(&o, term);
    for (int i = 0; i < n; i++) cr_assert(strstr(text.data, term[i].name + 8), "%s", term[i].name);
    rd_buf_clear(&text);
}
