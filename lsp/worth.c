/* worth.c - the three forms of an answer that are almost never right.
 *
 * Counted with the built-in model: of 1381 suggestions above its gate, at places in C headers and Python modules that are
 * not ours, 907 were right to the line's end; 32 had one of these forms, and none of those was.
 */
#include "lsp/worth.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum { LINE_LEAST = 8, LINE_MOST = 400, WORD_MOST = 64 };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_word(char c)
{
    return c == '_' || isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* ---- the line beside it ---- */

/* What of a line is not blank, without its end; false when it is longer than we compare. */
typedef struct bare {
    char text[LINE_MOST];
    size_t n;
    bool whole;
} bare;

static void add(bare *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n && b->whole; i++) {
        if (is_blank(s[i])) continue;
        b->whole = b->n < LINE_MOST;
        if (b->whole) b->text[b->n++] = s[i];
    }
}

static size_t line_start(const char *s, size_t n)
{
    while (n > 0 && s[n - 1] != '\n') n--;
    return n;
}

static size_t line_bytes(const char *s, size_t n)
{
    const char *end = memchr(s, '\n', n);

    return end ? (size_t)(end - s) : n;
}

static bool is_same(const bare *line, const char *s, size_t n)
{
    bare other = { .whole = true };

    add(&other, s, n);
    return other.whole && other.n == line->n && !memcmp(other.text, line->text, line->n);
}

/* One line that is then the same as the one above or below. Short ones (a brace, #endif) do come twice. */
static bool says_a_neighbour(const rd_around *a, const char *text, size_t n)
{
    size_t left = line_start(a->before, a->before_n), right = line_bytes(a->behind, a->behind_n);
    bare line = { .whole = true };

    if (memchr(text, '\n', n)) return false;
    add(&line, a->before + left, a->before_n - left);
    add(&line, text, n);
    add(&line, a->behind, right);
    if (!line.whole || line.n < LINE_LEAST) return false;
    if (left > 0) {
        size_t above = line_start(a->before, left - 1);

        if (is_same(&line, a->before + above, left - 1 - above)) return true;
    }
    if (right == a->behind_n) return false;
    const char *below = a->behind + right + 1;

    return is_same(&line, below, line_bytes(below, a->behind_n - right - 1));
}

/* ---- brackets ---- */

static void count(const char *s, size_t n, char opener, char closer, size_t *open, size_t *missing)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == opener)
            (*open)++;
        else if (s[i] == closer && *open > 0)
            (*open)--;
        else if (s[i] == closer)
            (*missing)++;
    }
}

/* Strings and comments count too: what stands before is only ever taken for more than it is. */
static bool closes_nothing(const rd_around *a, const char *text, size_t n)
{
    static const char pairs[] = "()[]{}";

    for (const char *p = pairs; *p; p += 2) {
        size_t open = 0, before = 0, missing = 0;

        count(a->before, a->before_n, p[0], p[1], &open, &before);
        count(text, n, p[0], p[1], &open, &missing);
        if (missing > 0) return true;
    }
    return false;
}

/* ---- words ---- */

static bool has_word(const char *s, size_t n, const char *word, size_t word_n)
{
    const char *at = s, *end = s + n;

    while ((at = memmem(at, (size_t)(end - at), word, word_n))) {
        const char *last = at + word_n;

        if ((at == s || !is_word(at[-1])) && (last == end || !is_word(*last))) return true;
        at++;
    }
    return false;
}

/* Squeezed between two texts, a model that writes pieces of words runs out of room within one. Such a word stands nowhere
 * else in the file. */
static bool ends_within_a_word(const rd_around *a, const char *text, size_t n)
{
    char word[WORD_MOST];
    size_t k = 0, left = a->before_n;

    if (a->behind_n == 0 || !is_blank(a->behind[0]) || n == 0) return false;
    if (line_bytes(a->behind, a->behind_n) == strspn(a->behind, " \t\r")) return false;
    while (k < n && k < WORD_MOST && is_word(text[n - 1 - k])) k++;
    while (k == n && left > 0 && a->before_n - left + n < WORD_MOST && is_word(a->before[left - 1]))
        left--;
    size_t more = a->before_n - left;

    if (k == 0 || k + more >= WORD_MOST) return false;
    memcpy(word, a->before + left, more);
    memcpy(word + more, text + n - k, k);
    for (size_t i = 0; i < k + more; i++)
        if ((unsigned char)word[i] >= 0x80) return false;
    if (isdigit((unsigned char)word[0])) return false;
    return !has_word(a->before, a->before_n, word, k + more) &&
           !has_word(a->behind, a->behind_n, word, k + more) &&
           !has_word(text, n - k, word, k + more);
}

const char *rd_unworthy(const rd_around *a, const char *text, size_t n)
{
    if (says_a_neighbour(a, text, n)) return "it makes the line beside it once more";
    if (closes_nothing(a, text, n)) return "it closes a bracket that nobody opened";
    if (ends_within_a_word(a, text, n)) return "it seems to end within a word";
    return NULL;
}
