/* glob.c - a pattern as pieces between slashes; a path's pieces move a set of places in it. */
#include "lsp/glob.h"

#include "core/base/memory.h"
#include "lsp/limits.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PIECES (RD_MOST_PATTERN_BYTES / 2 + 2)

struct rd_glob {
    char *text;
    bool takes_back, folders_only;
    rd_glob_piece *pieces; /* of the pattern; they point into `text` */
    size_t n;
};

static bool is_any_folders(rd_glob_piece p)
{
    return p.n == 2 && p.s[0] == '*' && p.s[1] == '*';
}

/* Blanks at the end go, unless a backslash stands before them. */
static size_t trimmed(const char *s, size_t n)
{
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r' || s[n - 1] == '\n')) {
        size_t slashes = 0;

        while (slashes + 1 < n && s[n - 2 - slashes] == '\\') slashes++;
        if (s[n - 1] == ' ' && slashes % 2 == 1) break;
        n--;
    }
    return n;
}

static void add_piece(rd_glob *g, const char *s, size_t n)
{
    rd_glob_piece p = { s, n };

    if (g->n > 0 && is_any_folders(p) && is_any_folders(g->pieces[g->n - 1])) return;
    g->pieces[g->n++] = p;
}

rd_glob *rd_glob_new(const char *line, size_t n)
{
    n = n ? trimmed(line, n) : 0;
    if (n == 0 || *line == '#' || n > RD_MOST_PATTERN_BYTES || memchr(line, 0, n)) return NULL;
    rd_glob *g = rd_alloc0(sizeof *g);
    const char *s = g->text = rd_copy_text(line, n);

    g->pieces = rd_alloc_array(n / 2 + 3, sizeof *g->pieces);
    if (*s == '!') {
        g->takes_back = true;
        s++;
        n--;
    }
    while (n > 0 && s[n - 1] == '/') {
        g->folders_only = true;
        n--;
    }
    if (n == 0) {
        rd_glob_free(g);
        return NULL;
    }
    if (!memchr(s, '/', n)) add_piece(g, "**", 2);
    for (size_t at = 0; at < n;) {
        const char *slash = memchr(s + at, '/', n - at);
        size_t len = slash ? (size_t)(slash - s) - at : n - at;

        if (len > 0) add_piece(g, s + at, len);
        at += len + 1;
    }
    return g;
}

void rd_glob_free(rd_glob *g)
{
    if (!g) return;
    free(g->text);
    free(g->pieces);
    free(g);
}

bool rd_glob_takes_back(const rd_glob *g)
{
    return g->takes_back;
}

const char *rd_glob_text(const rd_glob *g)
{
    return g->text;
}

static char lower(char c, bool fold)
{
    return fold && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool in_class(const char *name, size_t n, unsigned char c)
{
    static const struct {
        const char *name;
        int (*has)(int);
    } classes[] = { { "alpha", isalpha }, { "digit", isdigit },  { "alnum", isalnum },
                    { "upper", isupper }, { "lower", islower },  { "space", isspace },
                    { "punct", ispunct }, { "xdigit", isxdigit } };

    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strlen(classes[i].name) == n && !memcmp(classes[i].name, name, n))
            return c < 0x80 && classes[i].has(c);
    return false;
}

/* The bracket whose '[' is at p: its length, or 0 when it has no end. *has: whether `c` is in it. */
static size_t bracket(rd_glob_piece p, char c, bool fold, bool *has)
{
    size_t i = 1;
    bool not = i < p.n && (p.s[i] == '!' || p.s[i] == '^'), found = false;

    i += not ;
    for (size_t first = i; i < p.n && (p.s[i] != ']' || i == first);) {
        if (p.n - i > 3 && p.s[i] == '[' && p.s[i + 1] == ':') {
            const char *name = p.s + i + 2, *end = memchr(name, ':', p.n - i - 2);

            if (end && end + 1 < p.s + p.n && end[1] == ']') {
                size_t n = (size_t)(end - name);

                found |= in_class(name, n, (unsigned char)c);
                if (fold && c != lower(c, true))
                    found |= in_class(name, n, (unsigned char)lower(c, true));
                if (fold && c >= 'a' && c <= 'z')
                    found |= in_class(name, n, (unsigned char)(c - 32));
                i += n + 4;
                continue;
            }
        }
        if (p.s[i] == '\\' && i + 1 < p.n) i++;
        unsigned char from = (unsigned char)p.s[i], to = from, u = (unsigned char)c;

        i++;
        if (i + 1 < p.n && p.s[i] == '-' && p.s[i + 1] != ']') {
            i++;
            if (p.s[i] == '\\' && i + 1 < p.n) i++;
            to = (unsigned char)p.s[i++];
        }
        found |= u >= from && u <= to;
        if (fold && isalpha(u) && u < 0x80) {
            u ^= 32;
            found |= u >= from && u <= to;
        }
    }
    *has = found != not ;
    return i < p.n ? i + 1 : 0;
}

/* One element of a piece that is no '*': its length, and whether it matches `c`. */
static size_t element(rd_glob_piece p, char c, bool fold, bool *has)
{
    size_t n;

    *has = true;
    if (*p.s == '?') return 1;
    if (*p.s == '[' && (n = bracket(p, c, fold, has)) > 0) return n;
    n = *p.s == '\\' && p.n > 1 ? 2 : 1;
    *has = lower(p.s[n - 1], fold) == lower(c, fold);
    return n;
}

/* One piece of a pattern against one of a path. A star that went wrong takes one byte more; an earlier one never needs to. */
static bool piece_matches(rd_glob_piece p, rd_glob_piece path, bool fold, size_t *steps)
{
    size_t i = 0, j = 0, star = SIZE_MAX, from = 0;
    bool has;

    while (j<path.n && * steps> 0) {
        --*steps;
        if (i < p.n && p.s[i] == '*') {
            star = ++i;
            from = j;
            continue;
        }
        if (i < p.n) {
            size_t n = element((rd_glob_piece){ p.s + i, p.n - i }, path.s[j], fold, &has);

            *steps -= n < *steps ? n - 1 : *steps;
            if (has) {
                i += n;
                j++;
                continue;
            }
        }
        if (star == SIZE_MAX) return false;
        i = star;
        j = ++from;
    }
    while (i < p.n && p.s[i] == '*') i++;
    return i == p.n;
}

/* Folding only ever adds matches, also for `[!a-z]`. */
static bool either_matches(rd_glob_piece p, rd_glob_piece path, bool fold, size_t *steps)
{
    return piece_matches(p, path, false, steps) || (fold && piece_matches(p, path, true, steps));
}

/* `**` before other pieces may stand for no folder at all; at the end it stands for one name at least. */
static void skip_any_folders(const rd_glob *g, bool *at)
{
    for (size_t i = 0; i + 1 < g->n; i++)
        if (at[i] && is_any_folders(g->pieces[i])) at[i + 1] = true;
}

bool rd_glob_match(const rd_glob *g, const rd_glob_piece *pieces, size_t n, bool fold,
                   size_t *steps, bool *hits)
{
    bool at[MOST_PIECES + 1] = { true }, next[MOST_PIECES + 1];

    skip_any_folders(g, at);
    for (size_t k = 0; k < n; k++) {
        memset(next, 0, sizeof next);
        for (size_t i = 0; i < g->n; i++) {
            if (!at[i]) continue;
            if (is_any_folders(g->pieces[i]))
                next[i] = next[i + 1] = true;
            else if (either_matches(g->pieces[i], pieces[k], fold, steps))
                next[i + 1] = true;
        }
        skip_any_folders(g, next);
        hits[k] = next[g->n] && !(g->folders_only && k + 1 == n);
        memcpy(at, next, sizeof at);
    }
    return *steps > 0;
}
