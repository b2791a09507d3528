/* overlap.c - the longest border of suffix and text (Knuth, Morris and Pratt's failure function), and the
 * rules that it must satisfy. */
#include "core/decode/overlap.h"

#include "core/base/memory.h"

#include <stdbool.h>
#include <stdlib.h>

enum { LEAST = 8 };

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Bytes above 0x7f belong to letters of other scripts as often as not. */
static bool is_word(char c)
{
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (unsigned char)c >= 0x80;
}

static bool is_inside_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

static size_t solid(const char *s, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++) sum += !is_space(s[i]);
    return sum;
}

/* border[i]: the longest proper beginning of s[0..i] that is also its end. */
static void borders(const char *s, size_t n, size_t *border)
{
    size_t k = 0;

    for (size_t i = 1; i < n; i++) {
        while (k > 0 && s[i] != s[k]) k = border[k - 1];
        k += s[i] == s[k];
        border[i] = k;
    }
}

size_t rd_overlap(char before, const char *text, size_t n, const char *suffix, size_t suffix_n)
{
    size_t m = suffix_n < RD_OVERLAP_MOST ? suffix_n : RD_OVERLAP_MOST, k = 0;

    if (n < LEAST || m < LEAST) return 0;
    size_t *border = rd_alloc_array(m, sizeof *border);

    borders(suffix, m, border);
    for (size_t i = n > m ? n - m : 0; i < n; i++) {
        while (k > 0 && (k == m || text[i] != suffix[k])) k = border[k - 1];
        k += text[i] == suffix[k];
    }
    size_t at = n - k, repeats = k > 0 ? border[k - 1] : 0;

    free(border);
    if (solid(suffix, k) < LEAST || 2 * repeats >= k) return 0;
    if (is_inside_character(text[at])) return 0;
    if (is_word(at > 0 ? text[at - 1] : before) && is_word(text[at])) return 0;
    return k;
}
