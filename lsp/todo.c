/* todo.c - lines first: a comment, a placeholder, or both in a row; then empty bodies. */
#include "lsp/todo.h"

#include "lsp/utf8.h"

#include <string.h>

typedef struct source {
    const char *text;
    size_t n;
    unsigned leaders; /* of comments */
    bool python, braces;
    bool c; /* where `= (type){}` is a value */
} source;

/* How far the end of a comment or of arguments, or the beginning of a statement, is looked for. */
enum { FAR = 1024 };

enum { HASH = 1, SLASHES = 2, DASHES = 4, SEMICOLON = 8, PERCENT = 16, ANGLE = 32 };

static const struct {
    unsigned leader;
    const char *text, *close;
} leaders[] = {
    { HASH, "#", NULL },      { SLASHES, "//", NULL },  { SLASHES, "/*", "*/" },
    { DASHES, "--", NULL },   { SEMICOLON, ";", NULL }, { PERCENT, "%", NULL },
    { ANGLE, "<!--", "-->" },
};

/* Others have `//`, `#` and braces. */
static const struct {
    const char *languages; /* each between spaces */
    unsigned leaders;
    bool braces;
} families[] = {
    { " python ruby shellscript yaml toml r julia makefile cmake elixir dockerfile nim ", HASH,
      false },
    { " perl powershell terraform ", HASH, true },
    { " c cpp objective-c objective-cpp cuda-cpp java javascript javascriptreact typescript "
      "typescriptreact rust go csharp swift kotlin scala dart zig groovy css scss less ",
      SLASHES, true },
    { " lua sql haskell elm ", DASHES, false },
    { " lisp clojure scheme racket ini asm ", SEMICOLON, false },
    { " tex latex erlang prolog matlab ", PERCENT, false },
    { " html xml markdown vue svelte ", ANGLE, false },
};

static bool is_one_of(const char *word, size_t n, const char *words)
{
    for (const char *at = words; n > 0 && (at = strstr(at, " ")) != NULL && at[1]; at++)
        if (!strncmp(at + 1, word, n) && at[1 + n] == ' ') return true;
    return false;
}

static source source_of(const char *language, const char *text, size_t n)
{
    source s = { .text = text, .n = n, .leaders = HASH | SLASHES, .braces = true };
    size_t len = strlen(language);

    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (!is_one_of(language, len, families[i].languages)) continue;
        s.leaders = families[i].leaders;
        s.braces = families[i].braces;
    }
    s.python = !strcmp(language, "python");
    s.c = is_one_of(language, len, " c cpp objective-c objective-cpp cuda-cpp ");
    return s;
}

static bool is_end(char c)
{
    return c == '\n' || c == '\r';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\f';
}

static size_t line_start(const source *s, size_t at)
{
    while (at > 0 && !is_end(s->text[at - 1])) at--;
    return at;
}

static size_t line_end(const source *s, size_t at)
{
    while (at < s->n && !is_end(s->text[at])) at++;
    return at;
}

/* The beginning of the line after the one that ends at `end`; n when there is none. */
static size_t next_line(const source *s, size_t end)
{
    if (end + 1 < s->n && s->text[end] == '\r' && s->text[end + 1] == '\n') return end + 2;
    return end < s->n ? end + 1 : s->n;
}

static size_t far_from(const source *s, size_t at)
{
    return s->n - at > FAR ? at + FAR : s->n;
}

static size_t skip_blanks(const source *s, size_t at, size_t end)
{
    while (at < end && is_blank(s->text[at])) at++;
    return at;
}

static bool starts(const source *s, size_t at, const char *word)
{
    size_t n = strlen(word);

    return s->n - at >= n && !memcmp(s->text + at, word, n);
}

static bool contains(const source *s, size_t from, size_t to, const char *word)
{
    for (; from < to; from++)
        if (starts(s, from, word)) return true;
    return false;
}

/* ---- comments ---- */

/* Which leader stands at `at`; -1: none. */
static int leader_at(const source *s, size_t at)
{
    for (size_t i = 0; i < sizeof leaders / sizeof *leaders; i++)
        if ((s->leaders & leaders[i].leader) && starts(s, at, leaders[i].text)) return (int)i;
    return -1;
}

static bool asks_for_code(const source *s, size_t at, size_t end)
{
    static const char *const words[] = { "TODO", "FIXME", "XXX" };

    while (at < end && strchr("#/*-;%! @", s->text[at])) at++;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);

        if (starts(s, at, words[i]) && (at + n == s->n || !rd_is_word(s->text[at + n])))
            return true;
    }
    return starts(s, at, "...") && skip_blanks(s, at + 3, end) == end;
}

/* A comment alone on its line, or on some lines, from `at` on. Returns its end, or 0. */
static size_t comment_end(const source *s, size_t at)
{
    size_t end = line_end(s, at), close;
    int leader = leader_at(s, at);

    if (leader < 0 || !asks_for_code(s, at + strlen(leaders[leader].text), end)) return 0;
    if (!leaders[leader].close) return end;
    size_t most = far_from(s, at);

    for (close = at; close < most && !starts(s, close, leaders[leader].close);) close++;
    if (close == most) return 0;
    close += strlen(leaders[leader].close);
    return skip_blanks(s, close, s->n) == line_end(s, close) ? close : 0;
}

/* ---- what stands for code ---- */

static const struct {
    const char *text;
    const char *says; /* what its arguments have to hold */
    bool call;        /* without arguments it is something else */
} stand_ins[] = {
    { "todo!", NULL, true },
    { "unimplemented!", NULL, true },
    { "TODO", NULL, true },
    { "???", NULL, false },
    { "raise NotImplementedError", NULL, false },
    { "throw new NotImplementedException", NULL, true },
    { "throw new UnsupportedOperationException", NULL, true },
    { "throw new Error", "mplement", true },
    { "throw Error", "mplement", true },
    { "fatalError", "mplement", true },
    { "panic!", "mplement", true },
    { "panic", "mplement", true },
};

/* Behind the parenthesis that closes the one at `at`; 0 when it is not on this line. */
static size_t arguments_end(const source *s, size_t at)
{
    int depth = 0;
    char quote = 0;
    size_t most = far_from(s, at);

    for (; at < most && !is_end(s->text[at]); at++) {
        char c = s->text[at];

        if (quote) {
            if (c == '\\')
                at++;
            else if (c == quote)
                quote = 0;
        } else if (c == '"' || c == '\'') {
            quote = c;
        } else if (c == '(') {
            depth++;
        } else if (c == ')' && --depth == 0) {
            return at + 1;
        }
    }
    return 0;
}

/* The end of what stands for code at `at`, with its arguments; 0: it does not. */
static size_t stand_in_end(const source *s, size_t at)
{
    if (at > 0 && (rd_is_word(s->text[at - 1]) || strchr("\"'`?.", s->text[at - 1]))) return 0;
    for (size_t i = 0; i < sizeof stand_ins / sizeof *stand_ins; i++) {
        size_t behind = at + strlen(stand_ins[i].text), end = behind;

        if (!starts(s, at, stand_ins[i].text)) continue;
        if (behind < s->n && s->text[behind] == '(') end = arguments_end(s, behind);
        if (end == 0 || (end == behind && stand_ins[i].call)) continue;
        if (end < s->n && (rd_is_word(s->text[end]) || s->text[end] == '?')) continue;
        if (stand_ins[i].says && !contains(s, behind, end, stand_ins[i].says)) continue;
        return end < s->n && s->text[end] == ';' ? end + 1 : end;
    }
    return 0;
}

/* The end of a statement `pass` or `...` with the comment behind it; 0: it is none. */
static size_t filler_end(const source *s, size_t at, bool alone)
{
    size_t n = starts(s, at, "...") ? 3 : s->python && starts(s, at, "pass") ? 4 : 0;
    size_t end = line_end(s, at);

    if (n == 0 || !(alone || s->python)) return 0;
    size_t rest = skip_blanks(s, at + n, end);

    if (rest == end) return at + n;
    return s->python && s->text[rest] == '#' ? end : 0;
}

/* ---- lines ---- */

typedef struct line_hole {
    size_t start, end;
    bool comment, alone; /* nothing else stands on its line */
} line_hole;

/* Behind the colon of `def f(): pass`; 0: there is none. */
static size_t inline_body(const source *s, size_t start, size_t end)
{
    for (size_t i = end; i-- > start;)
        if (s->text[i] == ':') return skip_blanks(s, i + 1, end);
    return 0;
}

static bool find_on_line(const source *s, size_t at, line_hole *out)
{
    size_t start = line_start(s, at), end = line_end(s, at), found;
    size_t first = skip_blanks(s, start, end), body;

    if (first == end) return false;
    if ((found = comment_end(s, first)) != 0) {
        *out = (line_hole){ first, found, true, true };
        return true;
    }
    if (leader_at(s, first) >= 0) return false;
    if ((found = filler_end(s, first, true)) != 0) {
        *out = (line_hole){ first, found, false, true };
        return true;
    }
    if (s->python && (body = inline_body(s, first, end)) != 0 &&
        (found = filler_end(s, body, false)) != 0) {
        *out = (line_hole){ body, found, false, false };
        return true;
    }
    for (size_t i = first; i < end; i++) {
        if ((found = stand_in_end(s, i)) == 0) continue;
        *out = (line_hole){ i, found, false, i == first && skip_blanks(s, found, end) == end };
        return true;
    }
    return false;
}

static size_t indent(const source *s, size_t at)
{
    return at - line_start(s, at);
}

/* A comment and the placeholder below it are one hole. */
static void join(const source *s, line_hole *h)
{
    line_hole other;
    size_t start = line_start(s, h->start), next = next_line(s, line_end(s, h->end));

    if (!h->alone) return;
    if (h->comment && next < s->n && find_on_line(s, next, &other) && other.alone &&
        !other.comment && indent(s, other.start) == indent(s, h->start))
        h->end = other.end;
    if (h->comment || start == 0) return;
    size_t above = start - 1;

    if (above > 0 && s->text[above] == '\n' && s->text[above - 1] == '\r') above--;
    if (find_on_line(s, above, &other) && other.comment && other.end == above &&
        indent(s, other.start) == indent(s, h->start)) {
        h->start = other.start;
        h->comment = true;
    }
}

/* ---- empty bodies ---- */

/* An `=` that gives a value, outside of parentheses; *depth: of those that are open at the end. */
static bool assigns(const source *s, size_t from, size_t to, int *depth)
{
    bool found = false;

    *depth = 0;
    for (size_t i = from; i < to; i++) {
        char c = s->text[i], before = i > from ? s->text[i - 1] : ' ',
             after = i + 1 < to ? s->text[i + 1] : ' ';

        if (c == '(') (*depth)++;
        if (c == ')') (*depth)--;
        if (c == '=' && *depth == 0 && !strchr("=!<>", before) && after != '=' && after != '>')
            found = true;
    }
    return found;
}

static bool in_quotes(const source *s, size_t from, size_t to)
{
    bool odd = false;

    for (; from < to; from++) odd ^= s->text[from] == '"';
    return odd;
}

/* Whether the brace at `at` opens a body, by what stands before it. */
static bool opens_body(const source *s, size_t at)
{
    size_t k = at, word;
    int depth;

    while (k > 0 && (is_blank(s->text[k - 1]) || is_end(s->text[k - 1]))) k--;
    if (k == 0) return false;
    size_t start = k, least = k > FAR ? k - FAR : 0;
    char before = s->text[k - 1];

    while (start > least && !is_end(s->text[start - 1])) start--;
    bool value = assigns(s, start, k, &depth);

    if (in_quotes(s, start, k) || leader_at(s, skip_blanks(s, start, k)) >= 0 ||
        contains(s, start, k, "//"))
        return false;
    if (k - start >= 2 && starts(s, k - 2, "=>")) return true;
    if (before == ')') return !(value && s->c);
    if (!rd_is_word(before) && !strchr(">]*&?", before)) return false;
    for (word = k; word > start && rd_is_word(s->text[word - 1]);) word--;
    return !value && depth <= 0 &&
           !is_one_of(s->text + word, k - word, " return default in of case typeof new yield ");
}

/* The empty body between braces on the lines [from, to), or that begins a little before. */
static bool find_body(const source *s, size_t from, size_t to, rd_todo *out)
{
    size_t i = from;

    for (int back = 0; back < 2 && i > 0; back++) i = line_start(s, i - 1);
    for (; i < to; i++) {
        if (s->text[i] != '{') continue;
        size_t close = i + 1, last = i + 1;

        for (; close < s->n && (is_blank(s->text[close]) || is_end(s->text[close])); close++)
            if (is_end(s->text[close])) last = close + 1;
        if (close == s->n || s->text[close] != '}' || close < from || !opens_body(s, i)) continue;
        *out = (rd_todo){ .start = i + 1, .end = last > i + 1 ? last : close };
        return true;
    }
    return false;
}

bool rd_todo_find(const char *language, const char *text, size_t n, size_t from, size_t to,
                  rd_todo *out)
{
    source s = source_of(language, text, n);
    line_hole h;

    if (to > from && is_end(text[to - 1])) to--; /* whole lines: not the one behind them */
    if (to > from && is_end(text[to - 1]) && text[to] == '\n') to--;
    from = line_start(&s, from);
    to = line_end(&s, to);
    for (size_t at = from; at <= to && at < n; at = next_line(&s, line_end(&s, at))) {
        if (!find_on_line(&s, at, &h)) continue;
        join(&s, &h);
        *out = (rd_todo){ h.start, h.end, h.comment };
        return true;
    }
    return s.braces && find_body(&s, from, to, out);
}
