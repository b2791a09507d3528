/* faults.c - a small lexer, and six ways to be wrong. */
#include "core/train/faults.h"

#include "core/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_MOST = 512, DRAWS = 32 };

typedef struct token {
    size_t start, n;
} token;

typedef struct window {
    const char *text;
    size_t n;
    token token[TOKENS_MOST];
    int tokens;
} window;

static const char *const names[RD_FAULTS] = { "drop",     "double",     "swap",
                                              "operator", "off by one", "name" };

/* Each is changed for the other. Longer ones first, so that the lexer finds them. */
static const char *const operators[][2] = {
    { "<<", ">>" }, { "==", "!=" }, { "<=", "<" },  { ">=", ">" },   { "&&", "||" },
    { "+=", "-=" }, { "*=", "/=" }, { "++", "--" }, { "->", "." },   { "+", "-" },
    { "*", "/" },   { "&", "|" },   { "<", ">" },   { "and", "or" }, { "True", "False" },
};

const char *rd_fault_name(rd_fault fault)
{
    return names[fault];
}

static bool is_word(char c)
{
    unsigned char u = (unsigned char)c;

    return (u >= '0' && u <= '9') || (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || u == '_' ||
           u >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t token_bytes(const char *s, size_t n)
{
    size_t len = 0;

    while (len < n && is_word(s[len])) len++;
    if (len) return len;
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        for (int side = 0; side < 2; side++) {
            size_t m = strlen(operators[i][side]);

            if (m > 1 && n >= m && !memcmp(s, operators[i][side], m)) return m;
        }
    return 1;
}

static void lex(window *w)
{
    for (size_t i = 0; i < w->n && w->tokens < TOKENS_MOST;) {
        if (strchr(" \t\r\n\f\v", w->text[i]) && w->text[i]) {
            i++;
            continue;
        }
        size_t n = token_bytes(w->text + i, w->n - i);

        w->token[w->tokens++] = (token){ i, n };
        i += n;
    }
}

static bool is_text(const window *w, const token *t, const char *what)
{
    return t->n == strlen(what) && !memcmp(w->text + t->start, what, t->n);
}

/* Everything of the window with `with` in the place of [from, to). */
static void replace(const window *w, size_t from, size_t to, const char *with, size_t n,
                    rd_buf *out)
{
    rd_buf_reset(out);
    rd_buf_append(out, w->text, from);
    rd_buf_append(out, with, n);
    rd_buf_append(out, w->text + to, w->n - to);
}

static bool swap(const window *w, int i, rd_buf *out)
{
    const token *a = &w->token[i], *b = a + 1;
    rd_buf pair = { 0 };

    if (i + 1 >= w->tokens || memchr(w->text + a->start, '\n', b->start - a->start)) return false;
    rd_buf_append(&pair, w->text + b->start, b->n);
    rd_buf_append(&pair, w->text + a->start + a->n, b->start - a->start - a->n);
    rd_buf_append(&pair, w->text + a->start, a->n);
    replace(w, a->start, b->start + b->n, pair.data, pair.len, out);
    rd_buf_clear(&pair);
    return true;
}

static bool other_operator(const window *w, const token *t, rd_buf *out)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        for (int side = 0; side < 2; side++) {
            const char *other = operators[i][!side];

            if (!is_text(w, t, operators[i][side])) continue;
            replace(w, t->start, t->start + t->n, other, strlen(other), out);
            return true;
        }
    return false;
}

static bool off_by_one(const window *w, const token *t, rd_random *random, rd_buf *out)
{
    char number[24];

    for (size_t i = 0; i < t->n; i++)
        if (!is_digit(w->text[t->start + i])) return false;
    if (t->n > 9 || (t->n > 1 && w->text[t->start] == '0')) return false;
    int x = (int)strtol(w->text + t->start, NULL, 10);
    int n =
        snprintf(number, sizeof number, "%d", x > 0 && rd_random_below(random, 2) ? x - 1 : x + 1);

    replace(w, t->start, t->start + t->n, number, (size_t)n, out);
    return true;
}

static bool is_name(const char *s, size_t n)
{
    static const char *const keywords[] = {
        "if",  "else", "elif",   "for",  "while", "return", "def",    "class", "import", "from",
        "in",  "not",  "is",     "None", "and",   "or",     "try",    "with",  "as",     "pass",
        "int", "char", "struct", "void", "const", "static", "sizeof", "break", "True",   "False"
    };

    if (n < 2 || is_digit(*s)) return false;
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (strlen(keywords[i]) == n && !memcmp(keywords[i], s, n)) return false;
    return true;
}

/* A word of the file, found from a drawn place on. */
static bool other_name(const rd_fault_place *f, const window *w, const token *t, rd_random *random,
                       rd_buf *out)
{
    const char *word = w->text + t->start;

    if (!is_name(word, t->n)) return false;
    size_t at = rd_random_below(random, (uint32_t)f->bytes), n = 0;

    while (at > 0 && is_word(f->text[at]) && is_word(f->text[at - 1])) at--;
    while (at < f->bytes && !is_word(f->text[at])) at++;
    while (at + n < f->bytes && is_word(f->text[at + n])) n++;
    if (!is_name(f->text + at, n)) return false;
    replace(w, t->start, t->start + t->n, f->text + at, n, out);
    return true;
}

static bool try_fault(const rd_fault_place *f, const window *w, int i, rd_fault fault,
                      rd_random *random, rd_buf *out)
{
    const token *t = &w->token[i];
    rd_buf twice = { 0 };

    switch (fault) {
    case RD_FAULT_DROP: replace(w, t->start, t->start + t->n, "", 0, out); return true;
    case RD_FAULT_DOUBLE:
        rd_buf_append(&twice, w->text + t->start, t->n);
        rd_buf_text(&twice, is_word(w->text[t->start]) ? " " : "");
        replace(w, t->start, t->start, twice.data, twice.len, out);
        rd_buf_clear(&twice);
        return true;
    case RD_FAULT_SWAP: return swap(w, i, out);
    case RD_FAULT_OPERATOR: return other_operator(w, t, out);
    case RD_FAULT_OFF_BY_ONE: return off_by_one(w, t, random, out);
    case RD_FAULT_NAME: return other_name(f, w, t, random, out);
    case RD_FAULTS: break;
    }
    return false;
}

bool rd_fault_make(const rd_fault_place *f, rd_fault fault, rd_random *random, rd_buf *out)
{
    window *w = rd_alloc0(sizeof *w);
    bool made = false;

    w->text = f->text + f->start;
    w->n = f->end - f->start;
    lex(w);
    for (int draw = 0; draw < DRAWS && w->tokens > 0 && !made; draw++) {
        int i = (int)rd_random_below(random, (uint32_t)w->tokens);

        made = try_fault(f, w, i, fault, random, out) &&
               (out->len != w->n || memcmp(out->data, w->text, w->n) != 0);
    }
    free(w);
    return made;
}
