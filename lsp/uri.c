/* uri.c - `file:` URIs to paths and back.
 *
 * A URI that could be read as two paths is refused: what is judged and what is meant must be one file.
 */
#include "lsp/settings.h"

#include <string.h>
#include <strings.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that an escape stands for, or 0: a NUL ends a path early, an escaped slash is another path's. */
static char unescape(const char *s)
{
    int high = hex(s[0]), low = high < 0 ? -1 : hex(s[1]);

    if (low < 0 || (high << 4 | low) == '/') return 0;
    return (char)(high << 4 | low);
}

/* Behind "file:" and its host, at the path; NULL for another scheme or host. */
static const char *path_part(const char *uri)
{
    if (strncasecmp(uri, "file:", 5) != 0) return NULL;
    uri += 5;
    if (uri[0] == '/' && uri[1] == '/') {
        uri += 2;
        if (!strncasecmp(uri, "localhost/", 10)) uri += 9;
    }
    return *uri == '/' ? uri : NULL;
}

bool rd_path_of_uri(const char *uri, char *out, size_t n)
{
    size_t len = 0;

    for (const char *s = path_part(uri); s; s++) {
        char c = *s;

        if (len >= n || c == '?' || c == '#') return false;
        if (c == '%') {
            c = unescape(s + 1);
            if (!c) return false;
            s += 2;
        }
        out[len++] = c;
        if (!c) return true;
    }
    return false;
}

void rd_uri_of_path(const char *path, rd_buf *out)
{
    static const char kept[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";

    rd_buf_text(out, "file://");
    for (; *path; path++) {
        if (strchr(kept, *path))
            rd_buf_append(out, path, 1);
        else
            rd_buf_format(out, "%%%02X", (unsigned char)*path);
    }
}
